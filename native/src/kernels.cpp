#include "kernels.hpp"

#include <iterator>
#include <stdexcept>

#include "cpu.hpp"

namespace openwork {

std::vector<const Kernels*> available_kernels() {
  std::vector<const Kernels*> found;
#if defined(__x86_64__)
  const bool avx2 = cpu_has("avx2") && cpu_has("fma");
  if (avx2 && cpu_has("avx512f") && cpu_has("avx512dq") && cpu_has("avx512bw") && cpu_has("avx512vl")) found.push_back(&avx512_kernels());
  if (avx2) found.push_back(&avx2_kernels());
#elif defined(__aarch64__)
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

Function function_named(const std::string& name) {
  for (size_t f = 0; f < std::size(kFunctions); f++)
    if (name == kFunctions[f]) return static_cast<Function>(f);
  throw std::invalid_argument("unknown function '" + name + "'");
}

int widest_tile(const Kernels& kernels, int mb) {
  const int family = mb == 1 ? 0 : mb == 2 ? 1 : mb == 4 ? 2 : 3;
  int widest = kMaxVectors;
  while (!kernels.taps[family][widest - 1]) widest--;
  return widest;
}

}  // namespace openwork
