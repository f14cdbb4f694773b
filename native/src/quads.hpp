// What kernels on quads compute, and the table of them that a set of kernels has. A quad is a 32-bit word of four 8-bit channels, the
// first in the lowest byte; quads lie in planes as floats do. All results are the same bits on every CPU: sums are int32 and wrap around,
// products are added to floats with one rounding (fma), 8-bit results are rounded to nearest, ties to even, and NaN counts as `lo`.
#pragma once

#include <cstdint>

namespace openwork {

constexpr int kQuad = 4;  // channels in a word

// y[at] = quad of clamp(round(x[c][at] * inverse), lo, hi) for positions q <= at < q + n, whole units; zero where no pixel is.
struct Quantize {
  const float* x[kQuad];  // null: no such channel, zero
  float* y;
  const uint16_t* inside;  // see Taps
  int64_t q, n;
  float inverse, lo, hi;
};

// y[c][at] = scale * channel c of x[at].
struct Dequantize {
  const float* x;
  float* y[kQuad];  // null: nobody asks for it
  const uint16_t* inside;
  int64_t q, n;
  float scale;
};

enum class Residual { none, floats, unsigned_quads, signed_quads };

// sum = sum over taps k of the row's block: the four products of value[k, row] and x[offset[k] + q]
// y[row, q] = fma(residual[row, q], residual_scale, fma(sum, scale[row], bias[row])), the inner one alone without residual
// Rows of floats: out[row, q] = clamp(y, lo, hi). Four rows of quads: out[row / 4, q] = quad of k = clamp(round(y), lo, hi), or of table[k].
struct QuadTaps {
  const float* arena;
  float* arena_out;
  const int32_t* begin;   // [blocks], values of block b are begin[b] .. end[b]
  const int32_t* end;     // [blocks]
  const int32_t* list;    // [blocks], as in Taps
  const int32_t* offset;  // words from the arena's begin to the tap's value at position 0
  const int8_t* value;    // [taps][mb][kQuad]
  const int32_t* start;   // [blocks * mb], what sums begin with: zeros, or what flipping x adds to them (see quad_vec.hpp)
  const float* scale;     // [blocks * mb]
  const float* bias;      // [blocks * mb]
  const int32_t* out;     // [blocks * mb], or [blocks * mb / 4] planes of quads: words from the arena's begin
  const int32_t* residual;  // likewise, a plane of quads for four rows; or null
  Residual residual_kind;
  float residual_scale;
  const uint16_t* inside;  // see Taps
  float lo, hi;
  bool is_signed;        // x is
  bool quads_out;        // blocks then come in fours of rows
  const uint8_t* table;  // [256], by the low byte of k; or null
};

using QuadTapsKernel = void (*)(const QuadTaps&, int64_t q, int block_begin, int block_end);

constexpr int kMaxQuadVectors = 12;  // vectors of positions in a register block

struct QuadKernels {
  // Whether x's sign bits are flipped: of unsigned values, of signed ones.
  bool flips[2];
  // taps[log2(mb)][nv - 1], null where the block does not fit into the registers
  QuadTapsKernel taps[4][kMaxQuadVectors];
  void (*quantize)(const Quantize&);
  void (*dequantize[2])(const Dequantize&);  // [1]: of signed values
};

}  // namespace openwork
