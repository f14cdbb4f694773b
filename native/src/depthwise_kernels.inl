// Depthwise convolution, plane by plane: a loaded vector serves the outputs of up to eight rows. Included by kernels.inl.

#include "depthwise_lines.inl"

namespace {

using openwork::Depthwise;

// Keeps the compiler from loading it once more for every use.
inline vec in_register(vec v) {
#if OW_LANES == 16 && defined(__AVX512F__)
  asm("" : "+v"(v));
#elif OW_LANES == 8 && defined(__AVX2__)
  asm("" : "+x"(v));
#endif
  return v;
}

// `rows` rows of outputs for a kernel of KH x KW, ROWS at a time, in stripes of columns. The last ROWS may be some of those
// before them, once more.
template <int KH, int KW, int STRIDE, int ROWS>
void depthwise_rows(const DepthwiseRows d, const float* w, int rows, vec bias, vec lo, vec hi) {
  constexpr int kRead = (ROWS - 1) * STRIDE + KH;
  for (int o = 0; o < d.n; o += kLanes) {
    const int64_t count = d.n - o;
    for (int row = 0; row < rows; row += ROWS) {
      const int top = std::min(row, rows - ROWS);
      const float* const lines = d.lines + top * STRIDE * d.pitch + o;
      vec acc[ROWS];
      for (int r = 0; r < ROWS; r++) acc[r] = bias;
#pragma GCC unroll 16
      for (int k = 0; k < KW; k++) {
        const float* line = lines + k % STRIDE * d.phase + k / STRIDE;
        vec x[kRead];
#pragma GCC unroll 32
        for (int i = 0; i < kRead; i++, line += d.pitch) x[i] = in_register(load(line));
        // Sums that do not wait for each other follow each other.
#pragma GCC unroll 16
        for (int i = 0; i < KH; i++) {
          const vec weight = splat(w[i * KW + k]);
#pragma GCC unroll 8
          for (int r = 0; r < ROWS; r++) acc[r] += weight * x[r * STRIDE + i];
        }
      }
      float* y = d.y + top * d.y_pitch + o;
      for (int r = 0; r < ROWS; r++, y += d.y_pitch) store_first(y, clamp(acc[r], lo, hi), count);
    }
  }
}

// Rows of outputs in a tile: with what they read they fill the registers.
constexpr int kDepthwiseRows = OW_ACCUMULATORS >= 20 ? 8 : 4;

template <int KH, int KW, int STRIDE, int ROWS = kDepthwiseRows>
void depthwise_block(const DepthwiseImages& s, const float* w, const DepthwiseRows& d, int rows, float b, vec lo, vec hi) {
  const int tiles = (rows + kDepthwiseRows - 1) / kDepthwiseRows, each = (rows + tiles - 1) / tiles;
  if constexpr (ROWS > 1)
    if (each < ROWS) return depthwise_block<KH, KW, STRIDE, ROWS - 1>(s, w, d, rows, b, lo, hi);
  depthwise_rows<KH, KW, STRIDE, ROWS>(d, w, rows, splat(b), lo, hi);
}

// The same for a kernel of any size, row by row.
template <int STRIDE>
void depthwise_block_any(const DepthwiseImages& s, const float* w, const DepthwiseRows& d, int rows, float b, vec lo, vec hi) {
  for (int r = 0; r < rows; r++)
    for (int o = 0; o < d.n; o += kLanes) {
      vec acc = splat(b);
      for (int i = 0; i < s.kh; i++)
        for (int k = 0; k < s.kw; k++) acc += splat(w[i * s.kw + k]) * load(d.lines + (r * STRIDE + i) * d.pitch + k % STRIDE * d.phase + k / STRIDE + o);
      store_first(d.y + r * d.y_pitch + o, clamp(acc, lo, hi), d.n - o);
    }
}

template <int STRIDE>
void depthwise_strided(const Depthwise& d) {
  const int kh = d.images.kh, kw = d.images.kw;
  const auto block = kh == 3 && kw == 3   ? depthwise_block<3, 3, STRIDE>
                     : kh == 5 && kw == 5 ? depthwise_block<5, 5, STRIDE>
                                          : depthwise_block_any<STRIDE>;
  const vec lo = splat(d.lo), hi = splat(d.hi);
  for_depthwise_rows<STRIDE, STRIDE>(d.images, [&](int p, const DepthwiseRows& outputs, int rows) {
    block(d.images, d.weight + int64_t{p} * kh * kw, outputs, rows, d.bias[p], lo, hi);
  });
}

void depthwise(const Depthwise& d) { d.images.stride == 1 ? depthwise_strided<1>(d) : depthwise_strided<2>(d); }

}  // namespace
