// What a kernel family computes, and the table of kernels that one instruction set offers.
//
// Activations are planes in one arena of floats: channel after channel, each an image with zero padding around and between
// its rows, flattened to positions. See docs/engine.md.
#pragma once

#include <cstdint>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "activations.hpp"
#include "binary.hpp"
#include "depthwise.hpp"
#include "quads.hpp"

namespace openwork {

// Positions come in units of 16 floats whatever the vector length, so that one artifact serves every instruction set.
constexpr int kUnit = 16;
constexpr int kMaxRowsPerBlock = 8;

// y[row, q] = clamp(bias[row] + residual[row, q] + sum over taps k of the row's block: value[k, row] * x[offset[k] + q]); with
// `more`, what y holds stands for the bias: a sum that goes on. With `scale`, the sum is multiplied by it before all else is added.
struct Taps {
  const float* arena;
  float* arena_out;
  const int32_t* begin;     // [blocks], values of block b are begin[b] .. end[b]
  const int32_t* end;       // [blocks]
  const int32_t* list;      // [blocks], from a value's place to that of its offset; dense blocks share theirs
  const int32_t* offset;    // floats from the arena's begin to the tap's value at position 0
  const float* value;       // [taps][mb]
  const float* bias;        // [blocks * mb]
  const int32_t* out;       // [blocks * mb], floats from the arena's begin to the row's position 0
  const int32_t* residual;  // as out, or null
  const uint16_t* inside;   // [units], bit i: position 16 u + i is a pixel; others are stored as zero
  float lo, hi;
  bool more;
  const float* scale;  // [blocks * mb], or null
};

// y[n, o] = clamp(bias[o] + scale[o] * sum over columns k of o's panel: value[k, o] * x[n, index[k]]); lanes run over outputs o.
// Without a list of columns those of a panel follow each other: the k-th reads x[n, first + k].
struct Rows {
  const float* x;
  float* y;
  int64_t x_stride, y_stride;  // floats between samples
  const int32_t* start;        // [panels], values of panel p are start[p] .. end[p]
  const int32_t* end;          // [panels]
  const int32_t* first;        // [panels], where the panel's columns begin in the list
  const int32_t* index;        // [columns], or null
  const uint16_t* short_index; // the same in 16 bits, or null; only for panels of less than kUnit outputs, which have one of the two
  const float* value;          // [columns][width]
  const float* bias;           // [panels * width]
  float lo, hi;
  const float* scale;          // [panels * width], or null: 1
};

// y[i * block + r] = clamp(bias[i * block + r] + sum over blocks j of inputs and columns k: first[i, j, (r - k) mod block] *
// x[j * block + k]), by the frequencies of blocks: sixteen blocks of outputs are a panel, lanes run over them. Of a block of real
// values, rows 0 to block / 2 are the real parts of its frequencies, row block - k the imaginary part of frequency k.
constexpr int kMinCirculant = 4, kMaxCirculant = 128;
struct Circulant {
  int block;                // a power of two
  int64_t inputs, outputs;  // blocks of inputs; outputs
  const float* x;           // of one sample, filled up to whole blocks
  float* y;
  float* values;           // [block][stride], frequencies of x
  int64_t stride;          // blocks of inputs in whole units
  const float* spectrum;   // [panels][block / 2][inputs][2][kUnit]: of frequencies 0 and block / 2, which are real, then both parts of each other
  const float* first;      // [blocks of outputs][inputs][block], the first column of each block
  const float* bias;       // [outputs]
  const int32_t* place;    // [kUnit * block], where a panel's outputs lie after the way back
  const float* turns;      // [kMaxCirculant][2], cos and sin of 2 pi k / kMaxCirculant
  int64_t features;        // inputs that there are
  float lo, hi;
};

// One output as it is defined.
float circulant_output(const Circulant& c, int64_t output);

// y[n, o] = clamp(bias[o] + sum over slots k of o's panel: value[k, o] * x[n, window / 2 * begin[k] + position[k, o]]): of a window of
// consecutive inputs, which lies in registers, every output takes one of its own. Lanes run over the kUnit outputs of a panel.
constexpr int kWindows[] = {4, 8, 32};
constexpr int window_bits(int window) { return window == 4 ? 2 : window == 8 ? 3 : 5; }  // of a position
constexpr int window_slots(int window) { return 32 / window_bits(window); }              // whose positions share a word

struct Balanced {
  const float* x;  // filled up, so that the last window may read behind the inputs
  float* y;
  int64_t x_stride, y_stride;  // floats between samples
  const int32_t* start;        // [panels + 1], slots of panel p are start[p] .. start[p + 1]
  const int32_t* line;         // [panels], where the panel's positions begin
  const uint16_t* begin;       // [slots], in half windows
  const int32_t* position;     // [lines][kUnit], slot after slot, the first in the lowest bits
  const float* value;          // [slots][kUnit]
  const float* bias;           // [outputs]
  int64_t outputs;
  float lo, hi;
};

// y[o, pixel] = clamp(bias[o] + residual[o, pixel] + sum over columns k: value[k, o] * x[offset[k] + pixel]) for one panel of
// outputs that lie side by side in `value`; lanes run over outputs. For layers without zeros: no lane falls on padding.
struct Dense {
  const float* arena;
  float* arena_out;
  const int32_t* offset;  // [columns], floats from the arena's begin to the column's value at pixel 0
  int64_t columns;
  const float* value;        // [columns][width]
  const float* bias;         // [width]
  const int32_t* out;        // [outputs], floats from the arena's begin to the output's pixel 0
  const int32_t* residual;   // as out, from arena_out, too; or null
  int outputs;               // at most width: the last panel may be filled up with outputs that nobody wants
  int64_t x_pitch, y_pitch;  // floats from a tile's row to its next
  float lo, hi;
  const float* ahead;  // weights to ask for meanwhile, `ahead_step` floats on for every column
  int64_t ahead_step;
};

// Winograd's F(m x m, 3 x 3) for m = 2 or 4: m x m outputs of a 3 x 3 kernel from (m + 2)^2 products instead of 9 m^2. Tiles of
// m x m outputs are taken to a polynomial's values at m + 1 points and infinity, multiplied there, summed over the input
// channels, and taken back. Points: 0, 1, -1 (m = 2), and 0, a, -a, 2a, -2a with a = sqrt(1/2) (m = 4), of all symmetric ones
// about the most accurate. A "value" below is one of these (m + 2)^2.
constexpr int kWinogradTiles[] = {2, 4};
constexpr float kWinogradPoint = 0.70710678118654752f;  // a

// values[i * stride + t] = value i of tile t; tiles lie beside each other in one channel, their windows overlap by two columns.
struct WinogradTiles {
  const float* x;  // first float of the first tile's window of (m + 2) x (m + 2)
  int64_t pitch;
  int64_t rows, columns;  // of the windows, as far as they are to be read; beyond lie zeros
  int64_t tiles;
  float* values;
  int64_t stride;
};

// sums[t * sum_stride + o] = sum over channels c: x[c * x_stride + t] * value[c * width + o]; lanes run over outputs.
struct WinogradProduct {
  const float* x;
  int64_t x_stride, channels;
  const float* value;  // [channels][width]
  float* sums;
  int64_t sum_stride;
  const float* ahead;  // weights to ask for meanwhile, `ahead_step` floats on for every channel
  int64_t ahead_step;
};

// sums [m * m][width] of every tile, `stride` floats apart, to planes: y[o] = clamp(bias[o] + residual[o] + sum).
struct WinogradPixels {
  const float* sums;  // of whole vectors of pixels: what lies behind the last tile is read, too
  int64_t stride;
  int width, outputs;     // of a panel; the last one may be filled up
  const float* bias;      // [width]
  const float* arena;
  float* arena_out;
  const int32_t* out;       // [outputs], floats from the arena's begin to the output's position 0
  const int32_t* residual;  // as out, or null
  int64_t at, pitch;        // position of the first pixel, floats to the next row
  int64_t rows, columns;    // pixels of the tiles that there are
  float lo, hi;
};

// One plane of a pooling: out[y, x] = max or scaled sum over the window, clipped to the image.
struct Window {
  const float* x;
  float* y;
  int h, w, out_h, out_w;
  int64_t pitch, out_pitch;
  int kh, kw, sh, sw, ph, pw, dh, dw;
  const float* scale_y;  // [out_h], null for max
  const float* scale_x;  // [out_w]
};

// softmax(scale q^T k + mask) v for one head of one sample, queries [begin, begin + count). Offsets are floats from the arena's
// begin to position 0 of this sample in each of the head's channels.
struct Attention {
  const float* arena;
  float* arena_out;
  const int32_t *q, *k, *v, *out;  // [channels] each
  int channels;                    // of a head, at most kMaxHead
  int64_t keys;
  float scale;
  const int32_t* flags;  // [keys], or null: adds `on` where a flag is not zero, `off` where it is
  float on, off;
  const float* bias;     // [keys][bias_stride], or null: added to the score of (key, query)
  int64_t bias_stride;
};
constexpr int kMaxHead = 256;

// y[c, q] = (x[c, q] - mean[q]) / sqrt(variance[q] + eps) * weight[c] + bias[c], mean and variance over the channels; and quads of
// clamp(round(y[c, q] * inverse), lo, hi), or of y as QuantizeTokens rounds it
struct Norm {
  const float* arena;
  float* arena_out;
  const int32_t *x, *y;  // [channels], position 0 of each; y: or null
  int channels;
  const float *weight, *bias;
  float eps;
  const int32_t* quads;  // [channels / 4, rounded up], position 0 of each; or null
  float inverse, lo, hi;
  int32_t token;  // position 0 of the scales of tokens, which then are what quads are rounded by; -1: `inverse` is
  const uint16_t* inside;  // [units]
};

// The elementwise half of a recurrent step, for consecutive units of one sample (whole units of kUnit).
enum class Cell { gru, lstm, tanh, relu };
constexpr const char* kCells[] = {"gru", "lstm", "tanh", "relu"};  // as Cell counts
constexpr int kGates[] = {3, 4, 1, 1};                             // in PyTorch's order

struct Gates {
  const float* x;  // projected input; gate g of unit i at x[g * gate + i]
  const float* u;  // recurrent product, likewise
  int64_t gate;
  const float* h;  // state before
  float* next;     // state after
  float* c;        // cell state, changed in place; lstm only
  int64_t units;
};

using TapsKernel = void (*)(const Taps&, int64_t q, int block_begin, int block_end);
using DenseKernel = void (*)(const Dense&, int64_t x_tile, int64_t y_tile);
using WinogradKernel = void (*)(const WinogradProduct&);
using RowsKernel = void (*)(const Rows&, int64_t sample, int panel_begin, int panel_end);
using BalancedKernel = void (*)(const Balanced&, int panel_begin, int panel_end);

constexpr int kMaxFactor = 64;   // by which interleaving widens a row
constexpr int kMaxVectors = 12;  // vectors of positions in a register block
constexpr int kMaxQueries = 3;   // vectors of queries in a tile of attention
constexpr int kMaxColumns = 14;  // pixels of a row in a register block of the dense kernel: maps of 7, 14, 28, 56, .. fit exactly
constexpr int kMaxRows = 3;      // rows of pixels in it
constexpr int kMaxSamples = 6;   // samples in a register block of the rows and balanced kernels

struct Kernels {
  const char* name;
  int lanes;
  // taps[log2(mb)][nv - 1], null where the block does not fit into the registers
  TapsKernel taps[4][kMaxVectors];
  // dense[width / 32][step - 1][rows - 1][columns - 1] for widths 16 and 32, null where the block does not fit
  DenseKernel dense[2][2][kMaxRows][kMaxColumns];
  // winograd[width / 32][tiles - 1] for widths 16 and 32, null where the block does not fit; [m / 4] for the ways there and back
  WinogradKernel winograd[2][kMaxColumns];
  void (*winograd_values[2])(const WinogradTiles&);
  // In place, sums [(m + 2)^2][width] of a tile to [m * m][width]; whether all of them are finite, as far as one look can tell.
  bool (*winograd_back[2])(float* sums, int64_t tiles, int64_t stride, int width);
  void (*winograd_store[2])(const WinogradPixels&);
  // rows[log2(width)][samples - 1] for widths 1 to 64
  RowsKernel rows[7][kMaxSamples];
  // balanced[i][samples - 1] for kWindows[i]
  BalancedKernel balanced[std::size(kWindows)][kMaxSamples];
  void (*circulant_values)(const Circulant&);  // x to values
  bool (*circulant)(const Circulant&, int64_t panel);  // whether all outputs are finite; otherwise they mean nothing
  ActivateKernel activate[kActs];
  BinaryKernel binary[kBinaryCount][2];  // [1]: the second operand is one number
  void (*scale)(const float* x, const float* weight, const float* bias, float* y, int64_t n);
  void (*max_pool)(const Window&);
  void (*sum_pool)(const Window&);
  void (*depthwise)(const Depthwise&);
  // y[r * y_pitch + i] = x[r * x_pitch + i * step] for r < rows, i < n; reads and writes nothing between
  void (*copy_rows)(const float* x, int64_t x_pitch, int64_t step, float* y, int64_t y_pitch, int64_t rows, int64_t n);
  // y[i] = rows[i % factor][i / factor] for i < n; factor is at most kMaxFactor
  void (*interleave)(const float* const* rows, int factor, float* y, int64_t n);
  // y[i] = (1 - share[i]) * x[at[i]] + share[i] * x[next[i]]; y is no part of x
  void (*widen)(const float* x, const int32_t* at, const int32_t* next, const float* share, float* y, int64_t n);
  void (*mix)(const float* a, const float* b, float share, float* y, int64_t n);  // y[i] = (1 - share) * a[i] + share * b[i]
  float (*sum)(const float* x, int64_t n);
  float (*dot)(const float* x, const float* y, int64_t n);
  void (*attention)(const Attention& a, int64_t begin, int64_t count);  // at most kMaxQueries vectors of queries
  void (*layer_norm)(const Norm& n, int64_t unit_begin, int64_t unit_end);
  void (*gates[4])(const Gates&);  // as Cell counts
  void (*gather)(const float* x, const int32_t* index, float* y, int64_t n);  // y[i] = x[index[i]]
  double (*fma_peak)(int64_t iterations);  // returns flops done; time it to learn the peak
  QuadKernels quads;
};

// The same kernels but for those on quads, for CPUs that have dot products of bytes.
inline Kernels with_quads(Kernels kernels, const char* name, void (*fill)(QuadKernels&)) {
  kernels.name = name;
  fill(kernels.quads);
  return kernels;
}

const Kernels& reference_kernels();
const Kernels& base_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx2vnni_kernels();
const Kernels& avx512_kernels();
const Kernels& avx512vnni_kernels();
const Kernels& avx512amx_kernels();
#elif defined(__aarch64__)
const Kernels& neon_kernels();
const Kernels& neondot_kernels();
#endif

// Instruction sets that this machine can run, best first; "reference" is always last.
std::vector<const Kernels*> available_kernels();
// One of them by its name, the best for "auto"; throws std::invalid_argument naming those there are.
const Kernels& kernels_named(const std::string& isa);
// Applies an activation in place; throws std::invalid_argument for a name that is not in kActivations.
void activate(const Kernels& kernels, const std::string& name, std::span<const float> parameters, std::span<float> values);
// Vectors of positions in the widest register block of mb rows.
int widest_tile(const Kernels& kernels, int mb);
int widest_quad_tile(const Kernels& kernels, int mb);
// Whether blocks of 16 rows of quads are tiles that the CPU multiplies as matrices; elsewhere they are slower than smaller ones.
bool multiplies_matrices(const Kernels& kernels);
// Whether a tile of the dense kernel fits into the registers.
bool dense_fits(const Kernels& kernels, int width, int rows, int columns);

}  // namespace openwork
