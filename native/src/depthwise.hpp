// Depthwise convolutions, of floats and of quads.
#pragma once

#include <cstdint>

namespace openwork {

constexpr int kMaxDepthwise = 15;  // rows or columns of a kernel

// The sums of a depthwise convolution: of weight[p, di, dj] * x[p, i * stride + di, j * stride + dj - before] over the kernel for
// output y[p, i, j], x being zero where it has no such row or column.
struct DepthwiseImages {
  static constexpr int64_t kNoRow = INT64_MIN;
  const float* x;
  const int32_t* x_plane;  // [planes], floats from x
  const int64_t* row;      // [(out_h - 1) * stride + kh], floats from a plane's begin to each row that is read, or kNoRow
  float* y;
  const int32_t* y_plane;  // [planes], floats from y
  int64_t y_pitch;
  int planes;
  int w, before;     // columns of x, and of zeros in front of them
  int out_h, out_w;
  int kh, kw;        // at most kMaxDepthwise
  int stride;        // 1 or 2
};

// y[p, i, j] = clamp(bias[p] + sum)
struct Depthwise {
  DepthwiseImages images;
  const float* weight;  // [planes][kh][kw]
  const float* bias;    // [planes]
  float lo, hi;
};

// Four channels in a plane: y[p, i, j] = quads of clamp(round(sum * scale[c] + bias[c]), lo, hi), x being signed or not.
struct QuadDepthwise {
  DepthwiseImages images;
  const int32_t* weight;  // [planes][kh][tap_groups][4 channels], each the four weights of a group of taps
  const int32_t* start;   // [planes * 4], what sums begin with: zeros, or what flipping x adds to them (see quad_vec.hpp)
  const float* scale;     // [planes * 4]
  const float* bias;      // [planes * 4]
  float lo, hi;           // whole numbers; signed bytes if lo is negative
};

// A dot product takes four taps of a kernel's row; the last ones may be filled up with zeros.
constexpr int tap_groups(int kw) { return (kw + 3) / 4; }

}  // namespace openwork
