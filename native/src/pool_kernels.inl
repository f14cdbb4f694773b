// Pooling, in two directions: the rows of a window are joined over whole vectors of neighbouring pixels into a line, then
// columns of the line. Included by kernels.inl and quad_kernels.inl.
#pragma once

#include <algorithm>
#include <bit>
#include <limits>
#include <type_traits>

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using openwork::Window;

constexpr int kLine = 2048;  // floats of a line: it stays in the first cache, beside the rows it is made of

// How the pixels of a window are joined, and what joins to nothing: padding holds it.
struct Maximum {
  static constexpr float kNothing = -std::numeric_limits<float>::infinity();
  static vec joined(vec a, vec b) { return maximum(a, b); }
  static float joined(float a, float b) { return b > a || b != b ? b : a; }
};

struct Sum {
  static constexpr float kNothing = 0.0f;
  static vec joined(vec a, vec b) { return a + b; }
  static float joined(float a, float b) { return a + b; }
};

template <class Join>
constexpr bool kScaled = std::is_same_v<Join, Sum>;

// line[i] = x[i] joined with the rows below it, `step` floats apart, for i < n.
template <class Join>
void join_rows(const float* x, int64_t step, int rows, int n, float* line) {
  if (rows <= 0) return static_cast<void>(std::fill_n(line, n, Join::kNothing));
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    vec all = load(x + i);
    for (int r = 1; r < rows; r++) all = Join::joined(all, load(x + i + r * step));
    store(line + i, all);
  }
  if (i == n) return;
  vec all = load_first(x + i, n - i);
  for (int r = 1; r < rows; r++) all = Join::joined(all, load_first(x + i + r * step, n - i));
  store_first(line + i, all, n - i);
}

// Outputs of one row, whose windows begin STRIDE floats apart in the line; reads up to 2 kLanes beyond the last window.
template <class Join, int STRIDE>
void join_columns(const float* line, const Window& p, float* y, float scale_y, const float* scale_x, int n) {
  for (int o = 0; o < n; o += kLanes) {
    const auto at = [&](int k) {
      const float* const x = line + int64_t{o} * STRIDE + int64_t{k} * p.dw;
      return STRIDE == 1 ? load(x) : evens(load(x), load(x + kLanes));
    };
    vec all = at(0);
    for (int k = 1; k < p.kw; k++) all = Join::joined(all, at(k));
    if constexpr (kScaled<Join>) all *= scale_y * load_first(scale_x + o, n - o);
    store_first(y + o, all, n - o);
  }
}

// The same for any stride.
template <class Join>
void join_columns_apart(const float* line, const Window& p, float* y, float scale_y, const float* scale_x, int n) {
  for (int o = 0; o < n; o++, line += p.sw) {
    float all = line[0];
    for (int k = 1; k < p.kw; k++) all = Join::joined(all, line[int64_t{k} * p.dw]);
    y[o] = kScaled<Join> ? all * (scale_y * scale_x[o]) : all;
  }
}

// Windows too wide for a line, pixel by pixel.
template <class Join>
void pool_wide(const Window& p) {
  for (int oy = 0; oy < p.out_h; oy++)
    for (int ox = 0; ox < p.out_w; ox++) {
      float all = Join::kNothing;
      for (int ky = 0; ky < p.kh; ky++) {
        const int y = oy * p.sh - p.ph + ky * p.dh;
        if (y < 0 || y >= p.h) continue;
        for (int kx = 0; kx < p.kw; kx++) {
          const int x = ox * p.sw - p.pw + kx * p.dw;
          if (x >= 0 && x < p.w) all = Join::joined(all, p.x[y * p.pitch + x]);
        }
      }
      p.y[oy * p.out_pitch + ox] = kScaled<Join> ? all * (p.scale_y[oy] * p.scale_x[ox]) : all;
    }
}

template <class Join>
void pool(const Window& p) {
  constexpr int kSlack = 2 * kLanes;
  const int64_t window = int64_t{p.kw - 1} * p.dw + 1;
  if (window > kLine / 2) return pool_wide<Join>(p);
  const auto columns = p.sw == 1 ? join_columns<Join, 1> : p.sw == 2 ? join_columns<Join, 2> : join_columns_apart<Join>;
  const int each = static_cast<int>((kLine - window) / p.sw) + 1;  // outputs whose windows fill the line
  alignas(64) float line[kLine + kSlack];
  for (int begin = 0; begin < p.out_w; begin += each) {
    const int n = std::min(each, p.out_w - begin);
    const int64_t left = int64_t{begin} * p.sw - p.pw, span = int64_t{n - 1} * p.sw + window;  // of the line, on the image's columns
    const int first = static_cast<int>(std::clamp<int64_t>(left, 0, p.w)), last = static_cast<int>(std::clamp<int64_t>(left + span, 0, p.w));
    std::fill_n(line, span + kSlack, Join::kNothing);  // what lies beside the image stays so for all rows
    for (int oy = 0; oy < p.out_h; oy++) {
      const int row = oy * p.sh - p.ph;  // of the window's top, perhaps above the image
      const int top = row >= 0 ? 0 : (-row + p.dh - 1) / p.dh;
      const int bottom = std::min(p.kh, row >= p.h ? 0 : (p.h - 1 - row) / p.dh + 1);
      join_rows<Join>(p.x + (row + int64_t{top} * p.dh) * p.pitch + first, p.dh * p.pitch, bottom - top, last - first, line + (first - left));
      columns(line, p, p.y + oy * p.out_pitch + begin, kScaled<Join> ? p.scale_y[oy] : 1.0f, kScaled<Join> ? p.scale_x + begin : nullptr, n);
    }
  }
}

}  // namespace
