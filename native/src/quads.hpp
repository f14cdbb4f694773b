// What kernels on quads compute, and the table of them that a set of kernels has. A quad is a 32-bit word of four 8-bit channels, the
// first in the lowest byte; quads lie in planes as floats do. All results are the same bits on every CPU: sums are int32 and wrap around,
// products are added to floats with one rounding (fma), 8-bit results are rounded to nearest, ties to even, and NaN counts as `lo`.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "depthwise.hpp"

namespace openwork {

constexpr int kQuad = 4;  // channels in a word

// Blocks of 16 rows have their weights in tiles of 16 rows x 16 taps, filled up with zeros, which is how CPUs that multiply
// matrices take them.
constexpr int kTile = 16;

// Where a block's weights of a tap and a row lie, in words.
inline int64_t quad_weight(int mb, int64_t tap, int64_t row) { return mb == kTile ? (tap / kTile * kTile + row) * kTile + tap % kTile : tap * mb + row; }

// What the offsets of a tile's 16 taps have in common: x[offset[i]] = x[offset[0] + i * stride], all of them whole vectors of kTile words
// from the arena's begin; or nothing.
struct TileRows {
  int32_t stride;
  bool regular;
};

// Whose values lie in the working memory: of how many taps of which list, at how many vectors of positions from which on.
struct TileCopy {
  bool operator==(const TileCopy&) const = default;
  int32_t list = -1, taps = 0;
  int64_t q = 0;
  int vectors = 0;
};

// y[at] = quad of clamp(round(x[c][at] * inverse), lo, hi) for positions q <= at < q + n, whole units; zero where no pixel is.
struct Quantize {
  const float* x[kQuad];  // null: no such channel, zero
  float* y;
  const uint16_t* inside;  // see Taps
  int64_t q, n;
  float inverse, lo, hi;
};

constexpr float kLeastToken = 1e-30f;  // what is taken for the largest magnitude of a token, at least

// The scale of a token's levels -most to most: NaN if one of its values is not finite, as in PyTorch, where all of it then is NaN.
inline float token_scale(float largest, float most) { return std::isfinite(largest) ? std::max(largest, kLeastToken) / most : std::numeric_limits<float>::quiet_NaN(); }

// scale[at] = token_scale(largest |x[c][at]| over all channels, most), and quads[c / 4][at] = quads of clamp(round(x[c][at] * (1 / scale[at])), -most, most) for all positions of units; zero where no pixel is.
// y[c][at] = what is rounded so times scale[at], for those who read floats.
struct QuantizeTokens {
  const float* arena;
  float* arena_out;
  const int32_t* x;  // [channels], position 0 of each, as all that follow
  int channels;
  const int32_t* quads;  // [channels / 4, rounded up]; or null
  const int32_t* y;      // [channels]; or null
  int32_t scale;
  float most;
  const uint16_t* inside;  // [units]
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
// y[row, q] = fma(residual[row, q], residual_scale, fma(sum, scale[row], bias[row])), the inner one alone without residual; where
// positions have a scale of their own, sum is multiplied by that first
// Rows of floats: out[row, q] = clamp(y, lo, hi). Four rows of quads: out[row / 4, q] = quad of k = clamp(round(y), lo, hi).
struct QuadTaps {
  const float* arena;
  float* arena_out;
  const int32_t* begin;   // [blocks], values of block b are begin[b] .. end[b]
  const int32_t* end;     // [blocks]
  const int32_t* list;    // [blocks], as in Taps
  const int32_t* offset;  // words from the arena's begin to the tap's value at position 0
  const int8_t* value;    // [taps][mb][kQuad], or in tiles, see quad_weight
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
  bool small;            // no y can be above the largest int32, whatever x is
  const float* token;    // the scale of position 0, those of others behind it; or null
  const TileRows* tiles = nullptr;  // of blocks of 16 rows, [taps in the lists / 16]
  float* scratch = nullptr;         // likewise, a vector of kTile words for each tap of the longest list, times the tile's vectors
  TileCopy* copied = nullptr;       // likewise, what lies there from the call before
};

using QuadTapsKernel = void (*)(const QuadTaps&, int64_t q, int block_begin, int block_end);

constexpr int kMaxQuadVectors = 12;  // vectors of positions in a register block

// y[i] = quads of clamp(round(scale_a * a[i] + scale_b * b[i]), lo, hi) for i < n, the second product being added with one rounding;
// zero where no pixel is. y may be a or b.
struct QuadSum {
  const float* a;
  const float* b;
  float* y;
  int64_t n;
  const uint16_t* inside;  // see Taps; of position q + i, or null
  int64_t q;
  float scale_a, scale_b, lo, hi;
};

// y[i] = quads of the table's values for the bytes of x[i], likewise. y may be x.
struct QuadTable {
  const float* x;
  float* y;
  int64_t n;
  const uint8_t* table;  // [256]
  const uint16_t* inside;
  int64_t q;
};

// y = bytes of clamp(round(x[i] * inverse), lo, hi) for i < n, ready for QuadRows: followed by zeros up to kUnit bytes, all of them
// flipped where QuadKernels says so.
struct QuantizeRow {
  const float* x;
  int32_t* y;
  int64_t n;
  float inverse, lo, hi;
};

// y[n, o] = clamp(fma(sum * token[n], scale[o], bias[o])), sum = sum over columns k of o's panel: the four products of value[k, o] and
// x[n, index[k]].
// A panel has as many outputs as its kernel; lanes run over them, or over columns times outputs where a vector holds more. See Rows.
struct QuadRows {
  const int32_t* x;  // words
  float* y;
  int64_t x_stride, y_stride;  // between samples
  const int32_t* start;        // [panels + 1], values of panel p are start[p] .. start[p + 1]
  const int32_t* first;        // [panels], where the panel's columns begin in the list
  const int32_t* index;        // [columns], or null
  const uint16_t* short_index;  // the same in 16 bits, or null
  const int32_t* value;        // [columns][outputs of a panel], words
  const int32_t* sum;          // [panels][outputs], what sums begin with: zeros, or what flipping x adds to them
  const float* scale;          // [panels][outputs]
  const float* bias;           // [panels][outputs]
  const float* token;          // a scale for each sample
  float lo, hi;
  bool is_signed;  // x is
};

using QuadRowsKernel = void (*)(const QuadRows&, int64_t sample, int panel_begin, int panel_end);

constexpr int kMaxQuadSamples = 6;  // in a register block, as kMaxSamples

struct Window;

struct QuadKernels {
  // Whether x's sign bits are flipped: of unsigned values, of signed ones.
  bool flips[2];
  // taps[log2(mb)][nv - 1], null where the block does not fit into the registers
  QuadTapsKernel taps[5][kMaxQuadVectors];
  // Around calls of taps[4], where these multiply matrices; else null.
  void (*open_tiles)();
  void (*close_tiles)();
  void (*quantize)(const Quantize&);
  void (*quantize_tokens)(const QuantizeTokens&, int64_t unit_begin, int64_t unit_end);
  void (*dequantize[2])(const Dequantize&);  // [1]: of signed values
  void (*sum[2][2])(const QuadSum&);  // [1] for signed values of a, of b
  void (*table)(const QuadTable&);
  void (*depthwise[2])(const QuadDepthwise&);  // [1]: of signed values, as all that follow
  void (*max_pool[2])(const Window&);
  void (*total[2])(const float* x, int64_t n, int32_t* totals);  // adds each channel's values of quads x[i], i < n
  float (*largest)(const float* x, int64_t n);  // magnitude; infinite or NaN if one is
  void (*quantize_row[2])(const QuantizeRow&);
  QuadRowsKernel rows[5][kMaxQuadSamples];  // [log2 of outputs in a panel][samples - 1]
};

}  // namespace openwork
