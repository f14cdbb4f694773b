// Vectors of quads: 32-bit words of four 8-bit channels, the first in the lowest byte, as integer steps lay their planes out.
// What every kernel on them is written with, for each set of kernels.
//
// Sums of products are int32 and wrap around. They take a value's bytes as unsigned where kUnsignedQuads, else as signed. Values of
// the other kind go through flipped(), which moves them by 128: a kernel then starts its sums with 128 times the sum of the
// weights taken off (signed values, kUnsignedQuads) or added.
#pragma once

#include "quads.hpp"
#include "vec.hpp"

namespace {

typedef int32_t ivec_unaligned __attribute__((vector_size(4 * OW_LANES), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * OW_LANES)));
typedef uint16_t uvec16 __attribute__((vector_size(4 * OW_LANES)));
typedef int16_t ivec16 __attribute__((vector_size(4 * OW_LANES)));

// The arena is one of floats; quads lie in it bit by bit.
inline ivec load_quads(const float* p) { return *reinterpret_cast<const ivec_unaligned*>(p); }
inline ivec load_quads(const int32_t* p) { return *reinterpret_cast<const ivec_unaligned*>(p); }
inline void store_quads(float* p, ivec v) { *reinterpret_cast<ivec_unaligned*>(p) = v; }
inline ivec splat_quad(int32_t word) { return ivec{} + word; }
inline ivec keep_quads(ivec v, uint32_t bits) { return (ivec)keep((vec)v, bits); }

// Unsigned bytes from signed ones, moved by 128, and the other way round.
inline ivec flipped(ivec x) { return x ^ splat_quad(static_cast<int32_t>(0x80808080u)); }

// ---- sums of products ----

// dot(sum, x, w)[l] = sum[l] + the four products of x's and w's bytes in lane l. Values and weights are made ready once, with
// as_values and as_weights, for as many sums as they have a part in. kDotRegisters is what each of them takes.
#if defined(__x86_64__) && !(OW_LANES == 16 && defined(__AVX512VNNI__)) && !(OW_LANES == 8 && defined(__AVXVNNI__))

// Without VNNI, products of 16-bit halves, two at a time: the products of bytes that AVX2 has saturate.
constexpr bool kUnsignedQuads = true;
constexpr int kDotRegisters = 2;
struct QuadHalves {
  ivec even, odd;  // bytes 0 and 2, bytes 1 and 3, as 16-bit integers
};
using QuadValues = QuadHalves;
using QuadWeights = QuadHalves;
inline QuadValues as_values(ivec x) { return {x & 0x00ff00ff, (ivec)((uvec16)x >> 8)}; }
inline QuadWeights as_weights(ivec w) { return {(ivec)((ivec16)((uvec16)w << 8) >> 8), (ivec)((ivec16)w >> 8)}; }
inline ivec products_of_halves(ivec a, ivec b) {
#if OW_LANES == 16
  return (ivec)_mm512_madd_epi16((__m512i)a, (__m512i)b);
#elif OW_LANES == 8
  return (ivec)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#else
  return (ivec)_mm_madd_epi16((__m128i)a, (__m128i)b);
#endif
}
inline ivec dot(ivec sum, QuadValues x, QuadWeights w) {
  return (ivec)((uvec)sum + (uvec)products_of_halves(x.even, w.even) + (uvec)products_of_halves(x.odd, w.odd));
}

#else

#if OW_LANES == 4 && defined(__aarch64__)
constexpr bool kUnsignedQuads = false;
#else
constexpr bool kUnsignedQuads = true;
#endif
constexpr int kDotRegisters = 1;
using QuadValues = ivec;
using QuadWeights = ivec;
inline QuadValues as_values(ivec x) { return x; }
inline QuadWeights as_weights(ivec w) { return w; }
inline ivec dot(ivec sum, QuadValues x, QuadWeights w) {
#if OW_LANES == 16 && defined(__AVX512VNNI__)
  return (ivec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w);
#elif OW_LANES == 8 && defined(__AVXVNNI__)
  return (ivec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
#elif OW_LANES == 4 && defined(__ARM_FEATURE_DOTPROD)
  return (ivec)vdotq_s32((int32x4_t)sum, (int8x16_t)x, (int8x16_t)w);
#elif OW_LANES == 4 && defined(__aarch64__)
  const int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)x), vget_low_s8((int8x16_t)w)), high = vmull_high_s8((int8x16_t)x, (int8x16_t)w);
  return (ivec)vaddq_s32((int32x4_t)sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#else
  uvec total = (uvec)sum;
  for (int byte = 0; byte < 4; byte++)
    total += ((uvec)x >> (8 * byte) & 255) * (uvec)((ivec)((uvec)w << (24 - 8 * byte)) >> 24);
  return (ivec)total;
#endif
}

#endif

// ---- between integers and floats ----

inline vec to_float(ivec v) { return __builtin_convertvector(v, vec); }  // to nearest, ties to even

// a * b + c with one rounding, on every CPU.
inline vec fused(vec a, vec b, vec c) {
#if OW_LANES == 16 && defined(__AVX512F__)
  return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif OW_LANES == 8 && defined(__FMA__)
  return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif OW_LANES == 4 && defined(__aarch64__)
  return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  vec sum;
  for (int i = 0; i < kLanes; i++) sum[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return sum;
#endif
}

// The whole number nearest to v, ties to even, between lo and hi, which are whole numbers of at most 2^21; NaN becomes lo.
inline ivec rounded(vec v, vec lo, vec hi) {
#if OW_LANES == 16 && defined(__AVX512F__)
  return (ivec)_mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps((__m512)v, (__m512)lo), (__m512)hi));
#elif OW_LANES == 8 && defined(__AVX2__)
  return (ivec)_mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps((__m256)v, (__m256)lo), (__m256)hi));
#elif OW_LANES == 4 && defined(__x86_64__)
  return (ivec)_mm_cvtps_epi32(_mm_min_ps(_mm_max_ps((__m128)v, (__m128)lo), (__m128)hi));
#elif OW_LANES == 4 && defined(__aarch64__)
  return (ivec)vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32((float32x4_t)v, (float32x4_t)lo), (float32x4_t)hi));
#else
  v = v > lo ? v : lo;
  v = v < hi ? v : hi;
  const vec magic = splat(12582912.0f);  // 1.5 * 2^23: no bit is left below one
  return (ivec)(v + magic) - (ivec)magic;
#endif
}

constexpr int32_t kInfinity = 0x7f800000, kNaN = 0x7fc00000;  // bits of floats

// The bits of the larger magnitude, which are ordered as whole numbers are, NaN being the largest.
inline ivec larger_magnitude(ivec found, vec v) {
  const ivec magnitude = (ivec)v & 0x7fffffff;
  return magnitude > found ? magnitude : found;
}

// The bits of the largest magnitude of `value(channel)` over all channels; four at a time, so that comparisons overlap.
template <class Value>
inline ivec largest_magnitude(int channels, const Value& value) {
  ivec found[4] = {};
  int c = 0;
  for (; c + 4 <= channels; c += 4)
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) found[i] = larger_magnitude(found[i], value(c + i));
  for (; c < channels; c++) found[0] = larger_magnitude(found[0], value(c));
  for (int i = 1; i < 4; i++) found[0] = larger_magnitude(found[0], (vec)found[i]);
  return found[0];
}

// How tokens are rounded, by the bits of the largest magnitude of each: what they are multiplied by to be rounded, and by to come back.
struct TokenScale {
  TokenScale(ivec largest, float most) {
    const vec least = splat(openwork::kLeastToken), found = (vec)largest;
    const ivec finite = (ivec)((found > least ? found : least) / most);
    scale = (vec)(largest < kInfinity ? finite : splat_quad(kNaN));
    inverse = 1.0f / scale;
  }
  vec inverse, scale;
};

// ---- between quads and their channels ----

// Channel `byte` of quads.
template <bool SIGNED>
inline ivec channel(ivec quads, int byte) {
  const uvec top = (uvec)quads << (24 - 8 * byte);
  return SIGNED ? (ivec)top >> 24 : (ivec)(top >> 24);
}

// The larger of each pair of bytes.
template <bool SIGNED>
inline ivec maximum_bytes(ivec a, ivec b) {
#if OW_LANES == 16 && defined(__AVX512BW__)
  return (ivec)(SIGNED ? _mm512_max_epi8((__m512i)a, (__m512i)b) : _mm512_max_epu8((__m512i)a, (__m512i)b));
#elif OW_LANES == 8 && defined(__AVX2__)
  return (ivec)(SIGNED ? _mm256_max_epi8((__m256i)a, (__m256i)b) : _mm256_max_epu8((__m256i)a, (__m256i)b));
#elif OW_LANES == 4 && defined(__x86_64__)
  return SIGNED ? flipped((ivec)_mm_max_epu8((__m128i)flipped(a), (__m128i)flipped(b))) : (ivec)_mm_max_epu8((__m128i)a, (__m128i)b);
#elif OW_LANES == 4 && defined(__aarch64__)
  return SIGNED ? (ivec)vmaxq_s8((int8x16_t)a, (int8x16_t)b) : (ivec)vmaxq_u8((uint8x16_t)a, (uint8x16_t)b);
#else
  ivec found = {};
  for (int byte = 0; byte < 4; byte++) {
    const ivec x = channel<SIGNED>(a, byte), y = channel<SIGNED>(b, byte);
    found |= ((x > y ? x : y) & 255) << (8 * byte);
  }
  return found;
#endif
}

// Bounds of 8-bit results.
struct ByteRange {
  ByteRange(float low, float high) : lo(splat(low)), hi(splat(high)), lowest(four(low)), highest(four(high)), is_signed(low < 0), all_unsigned(low == 0 && high == 255) {}
  static ivec four(float v) { return splat_quad(static_cast<int32_t>(0x01010101u * (static_cast<uint32_t>(static_cast<int32_t>(v)) & 255))); }
  vec lo, hi;
  ivec lowest, highest;  // quads of lo, of hi
  bool is_signed, all_unsigned;
};

// Within each four lanes, byte i of word j becomes byte j of word i.
inline ivec transposed(ivec x) {
#if OW_LANES == 16 && defined(__AVX512BW__)
  return (ivec)_mm512_shuffle_epi8((__m512i)x, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
#elif OW_LANES == 8 && defined(__AVX2__)
  return (ivec)_mm256_shuffle_epi8((__m256i)x, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
#elif OW_LANES == 4 && defined(__x86_64__)
  const __m128i pairs = _mm_unpacklo_epi8((__m128i)x, _mm_srli_si128((__m128i)x, 8));
  return (ivec)_mm_unpacklo_epi8(pairs, _mm_srli_si128(pairs, 8));
#else
  typedef int8_t bytes __attribute__((vector_size(16)));
  static_assert(kLanes == 4);
  return (ivec)__builtin_shufflevector((bytes)x, (bytes)x, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
#endif
}

// The bytes of rounded() values: within each four lanes, word j has those of the j-th vector. `small`: no value is above the largest int32.
inline ivec rounded_words(vec a, vec b, vec c, vec d, const ByteRange& range, [[maybe_unused]] bool small = false) {
#if defined(__x86_64__)
  // Saturation is the lower bound, which NaN and what is below all integers come to as well; and, of small values, the upper one.
#if OW_LANES == 16
  const auto whole = [&](vec v) __attribute__((always_inline)) { return _mm512_cvtps_epi32(small ? (__m512)v : _mm512_min_ps((__m512)range.hi, (__m512)v)); };
  const __m512i low = _mm512_packs_epi32(whole(a), whole(b)), high = _mm512_packs_epi32(whole(c), whole(d)), highest = (__m512i)range.highest;
  if (small && range.all_unsigned) return (ivec)_mm512_packus_epi16(low, high);
  if (range.is_signed) return (ivec)_mm512_min_epi8((__m512i)maximum_bytes<true>((ivec)_mm512_packs_epi16(low, high), range.lowest), highest);
  return (ivec)_mm512_min_epu8((__m512i)maximum_bytes<false>((ivec)_mm512_packus_epi16(low, high), range.lowest), highest);
#elif OW_LANES == 8
  const auto whole = [&](vec v) __attribute__((always_inline)) { return _mm256_cvtps_epi32(_mm256_min_ps((__m256)range.hi, (__m256)v)); };
  const __m256i low = _mm256_packs_epi32(whole(a), whole(b)), high = _mm256_packs_epi32(whole(c), whole(d));
  if (range.is_signed) return maximum_bytes<true>((ivec)_mm256_packs_epi16(low, high), range.lowest);
  return maximum_bytes<false>((ivec)_mm256_packus_epi16(low, high), range.lowest);
#else
  const auto whole = [&](vec v) __attribute__((always_inline)) { return _mm_cvtps_epi32(_mm_min_ps((__m128)range.hi, (__m128)v)); };
  const __m128i low = _mm_packs_epi32(whole(a), whole(b)), high = _mm_packs_epi32(whole(c), whole(d));
  if (range.is_signed) return maximum_bytes<true>((ivec)_mm_packs_epi16(low, high), range.lowest);
  return maximum_bytes<false>((ivec)_mm_packus_epi16(low, high), range.lowest);
#endif
#else
  typedef int8_t bytes __attribute__((vector_size(16)));
  static_assert(kLanes == 4);
  const auto whole = [&](vec v) { return (bytes)rounded(v, range.lo, range.hi); };
  const auto joined = [](bytes x, bytes y) { return __builtin_shufflevector(x, y, 0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0); };
  return (ivec)__builtin_shufflevector(joined(whole(a), whole(b)), joined(whole(c), whole(d)), 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
#endif
}

// Quads of four channels' rounded() values.
inline ivec rounded_quads(vec a, vec b, vec c, vec d, const ByteRange& range, bool small = false) {
  return transposed(rounded_words(a, b, c, d, range, small));
}

// Every byte of quads replaced by table[byte].
inline ivec looked_up(const uint8_t* table, ivec quads) {
#if OW_LANES == 16 && defined(__AVX512BW__)
  // The sixteen pieces of the table are looked up in one after the other; the upper half of a byte says in which it lies.
  const __m512i all = (__m512i)quads, low = _mm512_and_si512(all, _mm512_set1_epi8(15)), high = _mm512_andnot_si512(_mm512_set1_epi8(15), all);
  __m512i found = _mm512_setzero_si512();
  for (int piece = 0; piece < 16; piece++) {
    const __m512i values = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * piece)));
    found = _mm512_mask_shuffle_epi8(found, _mm512_cmpeq_epi8_mask(high, _mm512_set1_epi8(static_cast<char>(16 * piece))), values, low);
  }
  return (ivec)found;
#elif OW_LANES == 8 && defined(__AVX2__)
  const __m256i all = (__m256i)quads, low = _mm256_and_si256(all, _mm256_set1_epi8(15)), high = _mm256_andnot_si256(_mm256_set1_epi8(15), all);
  __m256i found = _mm256_setzero_si256();
  for (int piece = 0; piece < 16; piece++) {
    const __m256i values = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table + 16 * piece)));
    const __m256i here = _mm256_cmpeq_epi8(high, _mm256_set1_epi8(static_cast<char>(16 * piece)));
    found = _mm256_or_si256(found, _mm256_and_si256(here, _mm256_shuffle_epi8(values, low)));
  }
  return (ivec)found;
#elif OW_LANES == 4 && defined(__aarch64__)
  uint8x16_t found = vdupq_n_u8(0);  // lookups beyond a quarter of the table leave it as it is
  for (int quarter = 0; quarter < 4; quarter++)
    found = vqtbx4q_u8(found, vld1q_u8_x4(table + 64 * quarter), vsubq_u8((uint8x16_t)quads, vdupq_n_u8(static_cast<uint8_t>(64 * quarter))));
  return (ivec)found;
#else
  uint8_t bytes[4 * kLanes];
  std::memcpy(bytes, &quads, sizeof bytes);
  for (uint8_t& byte : bytes) byte = table[byte];
  std::memcpy(&quads, bytes, sizeof bytes);
  return quads;
#endif
}

}  // namespace
