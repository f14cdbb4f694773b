// Depthwise convolution on quads. Of every four neighbouring positions the four channels' bytes are brought together: a word is then
// one channel at four neighbouring positions, and a dot product adds four taps of a kernel's row for a quarter of the lanes' positions
// in four channels each. Included by quad_kernels.inl.

#include "depthwise_lines.inl"

namespace {

using openwork::QuadDepthwise;
using openwork::tap_groups;

// The four words at p, once for each four lanes.
inline ivec repeated(const int32_t* p) {
#if OW_LANES == 16 && defined(__AVX512F__)
  return (ivec)_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif OW_LANES == 8 && defined(__AVX2__)
  return (ivec)_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  return load_quads(p);
#endif
}
inline vec repeated(const float* p) { return (vec)repeated(reinterpret_cast<const int32_t*>(p)); }

// What follows a plane's sums, for its four channels.
struct QuadEnd {
  ivec start;
  vec scale, bias;
  ByteRange range;

  // Of sums whose lanes 4 L .. 4 L + 3 are the channels of position 4 L + j.
  ivec quads(const ivec (&sums)[4]) const {
    vec y[4];
    for (int j = 0; j < 4; j++) y[j] = fused(to_float(sums[j]), scale, bias);
    return rounded_words(y[0], y[1], y[2], y[3], range);
  }

  void store(const ivec (&sums)[4], float* y, int64_t count) const { store_first(y, (vec)quads(sums), count); }
};

// Four words at x, x + 4 STRIDE, x + 8 STRIDE ... each; may read all that lies between, and three words more.
template <int STRIDE>
inline ivec load_fours(const float* x) {
  if constexpr (STRIDE == 1) return load_quads(x);
#if OW_LANES == 16 && defined(__AVX512F__)
  return (ivec)_mm512_shuffle_i32x4((__m512i)load_quads(x), (__m512i)load_quads(x + kLanes), 0x88);
#elif OW_LANES == 8 && defined(__AVX2__)
  return (ivec)_mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(x + 8), reinterpret_cast<const __m128i*>(x));
#else
  return load_quads(x);
#endif
}

// Four channels' values at four positions from x on, from x + 4 STRIDE on and so forth: taps for outputs that lie four apart.
template <int STRIDE, bool SIGNED>
inline QuadValues neighbours(const float* x) {
  const ivec quads = load_fours<STRIDE>(x);
  return as_values(transposed(SIGNED == kUnsignedQuads ? flipped(quads) : quads));
}

// Sums of ROWS vectors of outputs, whose taps lie DOWN rows and ACROSS columns apart.
template <int KH, int KW, int DOWN, int ACROSS, bool SIGNED, int ROWS>
__attribute__((always_inline)) inline void quad_depthwise_sums(const float* lines, int64_t pitch, const QuadWeights* w, ivec start, ivec (&sums)[ROWS][4]) {
  constexpr int kRead = (ROWS - 1) * DOWN + KH, kGroups = tap_groups(KW), kApart = 4 / ACROSS;  // outputs from a group to the next
  for (int r = 0; r < ROWS; r++)
    for (int j = 0; j < 4; j++) sums[r][j] = start;
#pragma GCC unroll 32
  for (int i = 0; i < kRead; i++)
#pragma GCC unroll 16
    for (int at = 0; at < 4 + kApart * (kGroups - 1); at++) {
      const QuadValues x = neighbours<ACROSS, SIGNED>(lines + i * pitch + at * ACROSS);
#pragma GCC unroll 4
      for (int g = 0; g < kGroups; g++)
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++)
          if (const int k = i - r * DOWN, j = at - g * kApart; k >= 0 && k < KH && j >= 0 && j < 4) sums[r][j] = dot(sums[r][j], x, w[k * kGroups + g]);
    }
}

// See depthwise_rows.
template <int KH, int KW, int STRIDE, bool SIGNED, int ROWS>
void quad_depthwise_rows(const DepthwiseRows& d, const QuadWeights* w, int rows, const QuadEnd& end) {
  for (int o = 0; o < d.n; o += kLanes)
    for (int row = 0; row < rows; row += ROWS) {
      const int top = std::min(row, rows - ROWS);
      ivec sums[ROWS][4];
      quad_depthwise_sums<KH, KW, STRIDE, STRIDE, SIGNED, ROWS>(d.lines + top * STRIDE * d.pitch + o * STRIDE, d.pitch, w, end.start, sums);
      for (int r = 0; r < ROWS; r++) end.store(sums[r], d.y + (top + r) * d.y_pitch + o, d.n - o);
    }
}

constexpr int kQuadDepthwiseRows = OW_ACCUMULATORS >= 20 ? 4 : 2;

template <int KH, int KW, int STRIDE, bool SIGNED, int ROWS = kQuadDepthwiseRows>
void quad_depthwise_block(const DepthwiseImages& s, const QuadWeights* w, const DepthwiseRows& d, int rows, const QuadEnd& end) {
  const int tiles = (rows + kQuadDepthwiseRows - 1) / kQuadDepthwiseRows, each = (rows + tiles - 1) / tiles;
  if constexpr (ROWS > 1)
    if (each < ROWS) return quad_depthwise_block<KH, KW, STRIDE, SIGNED, ROWS - 1>(s, w, d, rows, end);
  quad_depthwise_rows<KH, KW, STRIDE, SIGNED, ROWS>(d, w, rows, end);
}

// The same for a kernel of any size, row by row.
template <int STRIDE, bool SIGNED>
void quad_depthwise_block_any(const DepthwiseImages& s, const QuadWeights* w, const DepthwiseRows& d, int rows, const QuadEnd& end) {
  const int groups = tap_groups(s.kw);
  for (int r = 0; r < rows; r++)
    for (int o = 0; o < d.n; o += kLanes) {
      ivec sums[4] = {end.start, end.start, end.start, end.start};
      for (int i = 0; i < s.kh; i++)
        for (int g = 0; g < groups; g++) {
          const float* const x = d.lines + (r * STRIDE + i) * d.pitch + o * STRIDE + 4 * g;
          for (int j = 0; j < 4; j++) sums[j] = dot(sums[j], neighbours<STRIDE, SIGNED>(x + j * STRIDE), w[i * groups + g]);
        }
      end.store(sums, d.y + r * d.y_pitch + o, d.n - o);
    }
}

// Calls work(weights, end) for a plane.
template <class Work>
inline void with_plane(const QuadDepthwise& d, int p, const Work& work) {
  const int words = d.images.kh * tap_groups(d.images.kw);
  QuadWeights w[openwork::kMaxDepthwise * tap_groups(openwork::kMaxDepthwise)];
  for (int i = 0; i < words; i++) w[i] = as_weights(repeated(d.weight + (int64_t{p} * words + i) * 4));
  work(w, QuadEnd{repeated(d.start + 4 * p), repeated(d.scale + 4 * p), repeated(d.bias + 4 * p), ByteRange(d.lo, d.hi)});
}

#if OW_LANES == 16 && defined(__AVX512F__)

// Images so narrow that two rows of outputs fit into a vector: rows lie one behind the other, with the zeros between them that both
// need, and a vector of outputs goes on from a row to the next.
constexpr int kNarrowRows = 64;  // of an image

inline int narrow_pitch(const DepthwiseImages& d) { return std::max(d.out_w + d.kw - 1 - d.before, d.w + d.before); }

inline bool narrow(const DepthwiseImages& d) {
  return d.stride == 1 && d.before < kLanes && d.w < kLanes && d.out_h + d.kh <= kNarrowRows && narrow_pitch(d) + d.out_w <= kLanes && narrow_pitch(d) >= d.out_w;
}

template <int KH, int KW, bool SIGNED, int PAIRS = 4>
void quad_narrow_rows(const DepthwiseImages& d, const float* lines, const QuadWeights* w, float* y, int rows, const QuadEnd& end) {
  if constexpr (PAIRS > 1)
    if (rows <= 2 * (PAIRS - 1)) return quad_narrow_rows<KH, KW, SIGNED, PAIRS - 1>(d, lines, w, y, rows, end);
  const int pitch = narrow_pitch(d);
  ivec sums[PAIRS][4];
  quad_depthwise_sums<KH, KW, 2, 1, SIGNED, PAIRS>(lines, pitch, w, end.start, sums);
  for (int r = 0; r < PAIRS; r++, y += 2 * d.y_pitch) {
    const ivec found = end.quads(sums[r]);
    const auto first = static_cast<__mmask16>((1u << d.out_w) - 1);
    _mm512_mask_storeu_epi32(y, first, (__m512i)found);
    if (2 * r + 1 < rows) _mm512_mask_storeu_epi32(y + d.y_pitch - pitch, static_cast<__mmask16>(first << pitch), (__m512i)found);
  }
}

template <int KH, int KW, bool SIGNED>
void quad_depthwise_narrow(const QuadDepthwise& of) {
  const DepthwiseImages& d = of.images;
  const int pitch = narrow_pitch(d);
  alignas(64) float lines[2][kNarrowRows * kLanes + 4 * kLanes] = {};
  const auto lay_out = [&](int p, float* to) {
    for (int i = 0; i < d.out_h - 1 + d.kh; i++, to += pitch)
      if (d.row[i] != DepthwiseImages::kNoRow) store_first(to + d.before, load_first(d.x + d.x_plane[p] + d.row[i], d.w), d.w);
  };
  lay_out(0, lines[0]);
  for (int p = 0; p < d.planes; p++) {
    if (p + 1 < d.planes) lay_out(p + 1, lines[(p + 1) % 2]);
    with_plane(of, p, [&](const QuadWeights* w, const QuadEnd& end) {
      for (int top = 0; top < d.out_h; top += 8)
        quad_narrow_rows<KH, KW, SIGNED>(d, lines[p % 2] + top * pitch, w, d.y + d.y_plane[p] + top * d.y_pitch, std::min(8, d.out_h - top), end);
    });
  }
}

#endif

template <int STRIDE, bool SIGNED>
void quad_depthwise_strided(const QuadDepthwise& d) {
  const int kh = d.images.kh, kw = d.images.kw;
#if OW_LANES == 16 && defined(__AVX512F__)
  if (narrow(d.images) && kh == kw && (kh == 3 || kh == 5)) return kh == 3 ? quad_depthwise_narrow<3, 3, SIGNED>(d) : quad_depthwise_narrow<5, 5, SIGNED>(d);
#endif
  const auto block = kh == 3 && kw == 3   ? quad_depthwise_block<3, 3, STRIDE, SIGNED>
                     : kh == 5 && kw == 5 ? quad_depthwise_block<5, 5, STRIDE, SIGNED>
                     : kh == 7 && kw == 7 ? quad_depthwise_block<7, 7, STRIDE, SIGNED>
                                          : quad_depthwise_block_any<STRIDE, SIGNED>;
  for_depthwise_rows<STRIDE, 1>(d.images, [&](int p, const DepthwiseRows& outputs, int rows) {
    with_plane(d, p, [&](const QuadWeights* w, const QuadEnd& end) { block(d.images, w, outputs, rows, end); });
  });
}

template <bool SIGNED>
void quad_depthwise(const QuadDepthwise& d) {
  d.images.stride == 1 ? quad_depthwise_strided<1, SIGNED>(d) : quad_depthwise_strided<2, SIGNED>(d);
}

}  // namespace
