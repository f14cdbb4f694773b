#include "cpu.hpp"

#include <algorithm>
#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
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
  enum { vectors, wide, tiles } registers = vectors;  // needs those of 512 bits, or of matrices
};
constexpr Feature kFeatures[] = {
    {"avx2", 7, 0, 1, 5},      {"fma", 1, 0, 2, 12},        {"avx512f", 7, 0, 1, 16, Feature::wide},
    {"avx512dq", 7, 0, 1, 17, Feature::wide},  {"avx512bw", 7, 0, 1, 30, Feature::wide},    {"avx512vl", 7, 0, 1, 31, Feature::wide},
    {"avx512_vnni", 7, 0, 2, 11, Feature::wide}, {"avx512_bf16", 7, 1, 0, 5, Feature::wide},
    {"avx_vnni", 7, 1, 0, 4},         {"amx_tile", 7, 0, 3, 24, Feature::tiles}, {"amx_int8", 7, 0, 3, 25, Feature::tiles},
};

// The registers that the system saves when it switches between programs.
uint64_t saved_registers() {
  unsigned word[4] = {};
  if (!__get_cpuid(1, &word[0], &word[1], &word[2], &word[3]) || !(word[2] >> 27 & 1)) return 0;
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Linux gives a process the registers of matrices, 8 KiB a thread, when it asks for them: for good, and for all of its threads.
bool tiles_allowed() {
#if defined(__linux__)
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, arch/x86/include/uapi/asm/prctl.h
  static const bool allowed = syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  return allowed;
#else
  return false;
#endif
}

std::vector<std::string> ask() {
  constexpr uint64_t kNeeded[] = {0x6, 0xe6, 0x600e6};  // by vectors, wide ones, tiles
  const uint64_t saved = saved_registers();
  std::vector<std::string> found;
  for (const Feature& f : kFeatures) {
    const uint64_t needed = kNeeded[f.registers];
    unsigned word[4] = {};
    if ((saved & needed) == needed && __get_cpuid_count(f.leaf, f.subleaf, &word[0], &word[1], &word[2], &word[3]) && (word[f.word] >> f.bit & 1) && (f.registers != Feature::tiles || tiles_allowed()))
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
