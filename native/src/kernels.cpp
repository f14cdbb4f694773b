#include "kernels.hpp"

#include <bit>
#include <stdexcept>

#include "cpu.hpp"

namespace openwork {

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(OPENWORK_PORTABLE)
#elif defined(__x86_64__)
  const bool avx2 = cpu_has("avx2") && cpu_has("fma");
  const bool avx512 = avx2 && cpu_has("avx512f") && cpu_has("avx512dq") && cpu_has("avx512bw") && cpu_has("avx512vl");
#if defined(__linux__)
  if (avx512 && cpu_has("avx512_vnni") && cpu_has("amx_tile") && cpu_has("amx_int8")) found.push_back(&avx512amx_kernels());
#endif
  if (avx512 && cpu_has("avx512_vnni")) found.push_back(&avx512vnni_kernels());
  if (avx512) found.push_back(&avx512_kernels());
  if (avx2 && cpu_has("avx_vnni")) found.push_back(&avx2vnni_kernels());
  if (avx2) found.push_back(&avx2_kernels());
#elif defined(__aarch64__)
  if (cpu_has("asimddp")) found.push_back(&neondot_kernels());
  found.push_back(&neon_kernels());
#endif
  found.push_back(&base_kernels());
  found.push_back(&reference_kernels());
  return found;
}

const Kernels& kernels_named(const std::string& isa) {
  const auto all = available_kernels();
  if (isa == "auto") return *all.front();
  for (const Kernels* k : all)
    if (isa == k->name) return *k;
  std::string known;
  for (const Kernels* k : all) known += std::string(known.empty() ? "" : ", ") + k->name;
  throw std::invalid_argument("instruction set '" + isa + "' is not available on this machine; available: " + known);
}

void activate(const Kernels& kernels, const std::string& name, std::span<const float> parameters, std::span<float> values) {
  for (int f = 0; f < kActs; f++)
    if (name == kActivations[f].name && parameters.size() == kActivations[f].parameters)
      return kernels.activate[f]({values.data(), values.data(), static_cast<int64_t>(values.size()), nullptr, 0, parameters.data()});
  throw std::invalid_argument("unknown activation '" + name + "', or wrong number of parameters");
}

static_assert(kMaxQuadVectors == kMaxVectors);

template <class Kernel, size_t FAMILIES>
static int widest(const Kernel (&taps)[FAMILIES][kMaxVectors], int mb) {
  const size_t family = static_cast<size_t>(std::countr_zero(static_cast<unsigned>(mb)));
  if (!std::has_single_bit(static_cast<unsigned>(mb)) || family >= FAMILIES) throw std::invalid_argument("no block has " + std::to_string(mb) + " rows");
  int widest = kMaxVectors;
  while (!taps[family][widest - 1]) widest--;
  return widest;
}

int widest_tile(const Kernels& kernels, int mb) { return widest(kernels.taps, mb); }
int widest_quad_tile(const Kernels& kernels, int mb) { return widest(kernels.quads.taps, mb); }
bool multiplies_matrices(const Kernels& kernels) { return kernels.quads.open_tiles != nullptr; }

bool dense_fits(const Kernels& kernels, int width, int rows, int columns) {
  if ((width != 16 && width != 32) || rows < 1 || rows > kMaxRows || columns < 1 || columns > kMaxColumns) return false;
  return kernels.dense[width / 32][0][rows - 1][columns - 1] != nullptr;
}

}  // namespace openwork
