// One vector type per instruction set. Each kernels_*.cpp defines OW_LANES before it includes this, so every translation
// unit has its own `vec` inside its own (anonymous) namespace and the kernels above it are written once.
#pragma once

#include <cstdint>
#include <cstring>

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

// The first `count` floats at p, at most a vector, zeros after them. Reads no float beyond.
inline vec load_first(const float* p, int64_t count) {
  if (count >= kLanes) return load(p);
  if (count <= 0) return vec{};
#if OW_LANES == 16 && defined(__AVX512F__)
  return (vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
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
#elif OW_LANES == 8 && defined(__AVX__)
  ivec lane;
  for (int i = 0; i < kLanes; i++) lane[i] = i;
  _mm256_maskstore_ps(p, (__m256i)(lane < ivec{} + static_cast<int32_t>(count)), (__m256)v);
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

}  // namespace
