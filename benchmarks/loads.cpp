// How fast one core can load from a working set, and stream through it: what limits sparse kernels beside the FMA peak.
// Compiled by _roofline.py for the machine at hand.

#include <cstdint>

#if defined(__AVX512F__)
constexpr int kBytes = 64;
#elif defined(__AVX2__)
constexpr int kBytes = 32;
#else
constexpr int kBytes = 16;
#endif
typedef float vec __attribute__((vector_size(kBytes)));

// Adds up `count` vectors, `passes` times over; enough chains that the adder keeps up with two loads a cycle.
extern "C" float loads(const float* from, int64_t count, int64_t passes) {
  constexpr int kChains = 16;
  vec total[kChains] = {};
  for (int64_t pass = 0; pass < passes; pass++) {
    const vec* at = reinterpret_cast<const vec*>(from);
    for (int64_t i = 0; i + kChains <= count; i += kChains)
#pragma GCC unroll 16
      for (int chain = 0; chain < kChains; chain++) total[chain] += at[i + chain];
    asm volatile("" ::: "memory");  // every pass loads again
  }
  float sum = 0;
  for (const vec& one : total) sum += one[0];
  return sum;
}

extern "C" int64_t bytes_of_a_vector() { return kBytes; }
