#include "cpu.hpp"

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace openwork {
namespace {

#if defined(__x86_64__)

// Asked of the CPU itself: the compilers' __builtin_cpu_supports always says no where zig's run-time library is linked.
struct Feature {
  const char* name;
  unsigned leaf, subleaf;
  int word;  // eax, ebx, ecx, edx
  int bit;
  bool wide;  // needs registers of 512 bits
};
constexpr Feature kFeatures[] = {
    {"avx2", 7, 0, 1, 5, false},      {"fma", 1, 0, 2, 12, false},        {"avx512f", 7, 0, 1, 16, true},
    {"avx512dq", 7, 0, 1, 17, true},  {"avx512bw", 7, 0, 1, 30, true},    {"avx512vl", 7, 0, 1, 31, true},
    {"avx512_vnni", 7, 0, 2, 11, true}, {"avx512_bf16", 7, 1, 0, 5, true},
    {"avx_vnni", 7, 1, 0, 4, false},
};

// The registers that the system saves when it switches between programs.
uint64_t saved_registers() {
  unsigned word[4] = {};
  if (!__get_cpuid(1, &word[0], &word[1], &word[2], &word[3]) || !(word[2] >> 27 & 1)) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

std::vector<std::string> ask() {
  constexpr uint64_t kAvx = 0x6, kAvx512 = 0xe6;
  const uint64_t saved = saved_registers();
  std::vector<std::string> found;
  for (const Feature& f : kFeatures) {
    const uint64_t needed = f.wide ? kAvx512 : kAvx;
    unsigned word[4] = {};
    if ((saved & needed) == needed && __get_cpuid_count(f.leaf, f.subleaf, &word[0], &word[1], &word[2], &word[3]) && (word[f.word] >> f.bit & 1))
      found.emplace_back(f.name);
  }
  return found;
}

#elif defined(__aarch64__)

std::vector<std::string> ask() {
  std::vector<std::string> found = {"asimd"};  // NEON belongs to every aarch64
#if defined(__linux__)
  // Bits of the kernel's own list, arch/arm64/include/uapi/asm/hwcap.h: older C libraries do not name them all.
  const unsigned long first = getauxval(AT_HWCAP), second = getauxval(AT_HWCAP2);
  if (first >> 20 & 1) found.emplace_back("asimddp");
  if (second >> 13 & 1) found.emplace_back("i8mm");
  if (second >> 14 & 1) found.emplace_back("bf16");
#endif
  return found;
}

#else

std::vector<std::string> ask() { return {}; }

#endif

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
