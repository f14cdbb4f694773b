// One vector type per instruction set. Each kernels_*.cpp defines OW_LANES before it includes this, so every translation
// unit has its own `vec` inside its own (anonymous) namespace and the kernels above it are written once.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if !defined(OW_LANES)
#error "define OW_LANES (floats in a vector) before including vec.hpp"
#endif

namespace {

constexpr int kLanes = OW_LANES;

typedef float vec __attribute__((vector_size(4 * OW_LANES)));
typedef float vec_unaligned __attribute__((vector_size(4 * OW_LANES), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(4 * OW_LANES)));

inline vec load(const float* p) { return *reinterpret_cast<const vec_unaligned*>(p); }
inline void store(float* p, vec v) { *reinterpret_cast<vec_unaligned*>(p) = v; }
inline vec splat(float s) { return s - vec{}; }  // subtracting +0 is exact, so no instruction is left of it

// Clamp that lets NaN through, as PyTorch's relu does: x86 max/min return their second operand when either is NaN, those
// of NEON return NaN.
inline vec clamp(vec v, vec lo, vec hi) {
#if OW_LANES == 16 && defined(__AVX512F__)
  return (vec)_mm512_min_ps((__m512)hi, _mm512_max_ps((__m512)lo, (__m512)v));
#elif OW_LANES == 8 && defined(__AVX__)
  return (vec)_mm256_min_ps((__m256)hi, _mm256_max_ps((__m256)lo, (__m256)v));
#elif OW_LANES == 4 && defined(__aarch64__)
  return (vec)vminq_f32((float32x4_t)hi, vmaxq_f32((float32x4_t)lo, (float32x4_t)v));
#else
  v = v < lo ? lo : v;
  return v > hi ? hi : v;
#endif
}

// The larger of each lane; NaN wins, as in PyTorch's pooling.
inline vec maximum(vec a, vec b) {
#if defined(__aarch64__) && OW_LANES == 4
  return (vec)vmaxq_f32((float32x4_t)a, (float32x4_t)b);
#elif defined(__x86_64__)
  // x86 returns the second operand if either is NaN. Numbers give the same bits both ways (or zeros of both signs), and NaN
  // stays NaN with other bits added.
#if OW_LANES == 16
  return (vec)((ivec)(vec)_mm512_max_ps((__m512)a, (__m512)b) | (ivec)(vec)_mm512_max_ps((__m512)b, (__m512)a));
#elif OW_LANES == 8
  return (vec)((ivec)(vec)_mm256_max_ps((__m256)a, (__m256)b) | (ivec)(vec)_mm256_max_ps((__m256)b, (__m256)a));
#else
  return (vec)((ivec)(vec)_mm_max_ps((__m128)a, (__m128)b) | (ivec)(vec)_mm_max_ps((__m128)b, (__m128)a));
#endif
#else
  const ivec take = (b > a) | (b != b);
  return take ? b : a;
#endif
}

// Lanes 0, 2, 4, ... of a, then of b.
inline vec evens(vec a, vec b) {
#if OW_LANES == 16
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
#elif OW_LANES == 8
  return __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
#else
  return __builtin_shufflevector(a, b, 0, 2, 4, 6);
#endif
}

// Lanes 1, 3, 5, ... of a, then of b.
inline vec odds(vec a, vec b) {
#if OW_LANES == 16
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
#elif OW_LANES == 8
  return __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
#else
  return __builtin_shufflevector(a, b, 1, 3, 5, 7);
#endif
}

// Keeps lane i where bit i is set, zero elsewhere (also where the lane is NaN or infinite).
inline vec keep(vec v, uint32_t bits) {
#if OW_LANES == 16 && defined(__AVX512F__)
  return (vec)_mm512_maskz_mov_ps((__mmask16)bits, (__m512)v);
#elif OW_LANES == 4 && defined(__aarch64__)
  const uint32x4_t lane = {1, 2, 4, 8};
  return (vec)vandq_u32((uint32x4_t)v, vtstq_u32(vdupq_n_u32(bits), lane));
#else
  ivec lane;
  for (int i = 0; i < kLanes; i++) lane[i] = 1 << i;
  const ivec on = ((ivec{} + static_cast<int32_t>(bits)) & lane) != 0;
  return (vec)((ivec)v & on);
#endif
}

#if OW_LANES == 8 && defined(__AVX2__)
inline __m256i lanes_below(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
#endif

// The first `count` floats at p, at most a vector, zeros after them. Reads no float beyond.
inline vec load_first(const float* p, int64_t count) {
  if (count >= kLanes) return load(p);
  if (count <= 0) return vec{};
#if OW_LANES == 16 && defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#elif OW_LANES == 8 && defined(__AVX2__)
  return (vec)_mm256_maskload_ps(p, lanes_below(count));
#else
  vec v = {};
  std::memcpy(&v, p, sizeof(float) * static_cast<size_t>(count));
  return v;
#endif
}

// The first `count` lanes, at most a vector, to p; writes no float beyond.
inline void store_first(float* p, vec v, int64_t count) {
  if (count >= kLanes) return store(p, v);
  if (count <= 0) return;
#if OW_LANES == 16 && defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
#elif OW_LANES == 8 && defined(__AVX2__)
  _mm256_maskstore_ps(p, lanes_below(count), (__m256)v);
#else
  std::memcpy(p, &v, sizeof(float) * static_cast<size_t>(count));
#endif
}

// COUNT floats at p into the lanes from `first` on; the other lanes stay. Reads no float beyond them.
template <int COUNT>
inline vec load_some(const float* p, vec v, int first) {
#if OW_LANES == 16 && defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>(((1u << COUNT) - 1) << first);
  return (vec)_mm512_mask_loadu_ps((__m512)v, mask, p - first);
#else
  for (int i = 0; i < COUNT; i++) v[first + i] = p[i];
  return v;
#endif
}

// The COUNT lanes from `first` on to p; writes no float beyond them.
template <int COUNT>
inline void store_some(float* p, vec v, int first) {
#if OW_LANES == 16 && defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>(((1u << COUNT) - 1) << first);
  _mm512_mask_storeu_ps(p - first, mask, (__m512)v);
#else
  for (int i = 0; i < COUNT; i++) p[i] = v[first + i];
#endif
}

#if OW_LANES == 16 && defined(__AVX512F__)
inline __m512i lanes_of(const int32_t* p, __mmask16 mask) { return _mm512_maskz_loadu_epi32(mask, p); }
inline __m512i lanes_of(const uint16_t* p, __mmask16 mask) { return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)); }
#elif OW_LANES == 8 && defined(__AVX2__)
inline __m256i lanes_of(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline __m256i lanes_of(const uint16_t* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
#endif

// x[index[l]] into lane l < n, zero into the others.
template <class Index>
inline vec gathered_first(const float* x, const Index* index, int n) {
#if OW_LANES == 16 && defined(__AVX512F__)
  const auto mask = static_cast<__mmask16>((1u << n) - 1);
  return (vec)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, lanes_of(index, mask), x, 4);
#else
  vec v = {};
  for (int l = 0; l < n; l++) v[l] = x[index[l]];
  return v;
#endif
}

// The same for all lanes. With AVX-512 a gather fills up a vector that is given: zeros, so that it waits for none before it.
template <class Index>
inline vec gathered(const float* x, const Index* index) {
#if OW_LANES == 16 && defined(__AVX512F__)
  return (vec)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, lanes_of(index, 0xffff), x, 4);
#elif OW_LANES == 8 && defined(__AVX2__)
  return (vec)_mm256_i32gather_ps(x, lanes_of(index), 4);
#else
  vec v = {};
  for (int l = 0; l < kLanes; l++) v[l] = x[index[l]];
  return v;
#endif
}

// x[at[l] mod WINDOW] into lane l: each lane takes one of WINDOW consecutive floats. Reads all of them.
template <int WINDOW>
inline vec picked(const float* x, ivec at) {
  static_assert(WINDOW == 4 || WINDOW == 8 || WINDOW == 32);
#if OW_LANES == 16 && defined(__AVX512F__)  // permutations look at no more bits than they need
  if constexpr (WINDOW == 4)
    return (vec)_mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(x)), (__m512i)at);
  else if constexpr (WINDOW == 8)
    return (vec)_mm512_permutexvar_ps((__m512i)at, _mm512_broadcast_f32x8(_mm256_loadu_ps(x)));
  else
    return (vec)_mm512_permutex2var_ps((__m512)load(x), (__m512i)at, (__m512)load(x + 16));
#elif OW_LANES == 8 && defined(__AVX2__)
  if constexpr (WINDOW == 4)
    return (vec)_mm256_permutevar_ps(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(x)), (__m256i)at);
  else if constexpr (WINDOW == 8)
    return (vec)_mm256_permutevar8x32_ps((__m256)load(x), (__m256i)at);
  else
    return (vec)_mm256_i32gather_ps(x, (__m256i)(at & (WINDOW - 1)), 4);
#else
  at &= WINDOW - 1;
  vec v = {};
  for (int l = 0; l < kLanes; l++) v[l] = x[at[l]];
  return v;
#endif
}

// ---- lanes that are columns times WIDTH outputs ----

// Lane l of the result is lane V * kLanes / WIDTH + l / WIDTH of x: columns V * kLanes / WIDTH on, each for WIDTH outputs.
template <int WIDTH, int V, class Vector, size_t... LANE>
inline Vector spread(Vector x, std::index_sequence<LANE...>) {
  return __builtin_shufflevector(x, x, (V * kLanes + static_cast<int>(LANE)) / WIDTH...);
}

// Lane o < WIDTH of the result is the sum of lanes o, o + WIDTH, o + 2 WIDTH, ... of v, halved again and again.
template <int WIDTH, int HALF = kLanes / 2, class Vector>
inline Vector folded(Vector v) {
  if constexpr (HALF < WIDTH) {
    return v;
  } else {
    const auto half = [&]<size_t... LANE>(std::index_sequence<LANE...>) {
      return __builtin_shufflevector(v, v, (static_cast<int>(LANE) + HALF) % kLanes...);
    };
    return folded<WIDTH, HALF / 2>(v + half(std::make_index_sequence<kLanes>()));
  }
}

}  // namespace
