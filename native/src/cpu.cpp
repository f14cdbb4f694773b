#include "cpu.hpp"

#include <algorithm>

#if defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace openwork {
namespace {

std::vector<std::string> ask() {
  std::vector<std::string> found;
#if defined(__x86_64__)
  // The built-in also looks whether the system saves the wide registers.
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2");
  if (__builtin_cpu_supports("fma")) found.emplace_back("fma");
  if (__builtin_cpu_supports("avx512f")) found.emplace_back("avx512f");
  if (__builtin_cpu_supports("avx512dq")) found.emplace_back("avx512dq");
  if (__builtin_cpu_supports("avx512bw")) found.emplace_back("avx512bw");
  if (__builtin_cpu_supports("avx512vl")) found.emplace_back("avx512vl");
  if (__builtin_cpu_supports("avx512vnni")) found.emplace_back("avx512_vnni");
  if (__builtin_cpu_supports("avx512bf16")) found.emplace_back("avx512_bf16");
#elif defined(__aarch64__)
  found.emplace_back("asimd");  // NEON belongs to every aarch64
#if defined(__linux__)
  // Bits of the kernel's own list, arch/arm64/include/uapi/asm/hwcap.h: older C libraries do not name them all.
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  if (first >> 20 & 1) found.emplace_back("asimddp");
  if (second >> 13 & 1) found.emplace_back("i8mm");
  if (second >> 14 & 1) found.emplace_back("bf16");
#endif
#endif
  return found;
}

}  // namespace

const std::vector<std::string>& cpu_features() {
  static const std::vector<std::string> features = ask();
  return features;
}

bool cpu_has(const char* feature) {
  const auto& all = cpu_features();
  return std::find(all.begin(), all.end(), feature) != all.end();
}

}  // namespace openwork
