// How depthwise kernels read their images, of floats or of quads. The rows that some rows of outputs read are first laid below each
// other with zeros around them, even and odd columns apart where that is wanted: every tap is then a load at a fixed distance.
#pragma once

#include <algorithm>

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using openwork::DepthwiseImages;
using openwork::kUnit;

constexpr int kStaged = 3072;  // floats of rows laid out at a time: two blocks of them stay in the first cache
constexpr int kStrip = 128;    // columns that a strip of outputs covers

// Rows that are laid out: row i begins at x + row[i], or is all zeros.
struct Staged {
  const float* x;
  const int64_t* row;
  int rows;
  int64_t n;      // pixels of a row
  int64_t at;     // column of the first one
  int64_t phase;  // floats from even columns to odd ones
  int64_t pitch;  // from a row to the next
  int64_t next;   // from x to where the next block's rows lie
};

// A stripe of columns down all rows, so that short rows, of which there are many, cost no more than their vectors.
template <int PHASES>
inline void stage(const Staged& s, float* lines) {
  for (int64_t i = 0; i < s.n; i += PHASES * kLanes) {
    const int64_t left = s.n - i;
    float* to = lines + (s.at + i) % PHASES * s.phase + (s.at + i) / PHASES;
    float* to_odd = PHASES == 1 ? nullptr : lines + (s.at + i + 1) % PHASES * s.phase + (s.at + i + 1) / PHASES;
    const auto down = [&](int64_t count) {
      for (int r = 0; r < s.rows; r++, to += s.pitch, to_odd += PHASES == 1 ? 0 : s.pitch) {
        if (s.row[r] == DepthwiseImages::kNoRow) continue;
        const float* const x = s.x + s.row[r] + i;
        __builtin_prefetch(x + s.next, 0, 3);
        if constexpr (PHASES == 1) {
          store_first(to, load_first(x, count), count);
        } else {
          __builtin_prefetch(x + s.next + kLanes, 0, 3);
          const vec a = load_first(x, count), b = load_first(x + kLanes, count - kLanes);
          store_first(to, evens(a, b), (count + 1) / 2);
          store_first(to_odd, odds(a, b), count / 2);
        }
      }
    };
    if (left >= PHASES * kLanes)
      down(PHASES * kLanes);
    else
      down(left);
  }
}

// The rows of a plane's outputs that are worked on at a time.
struct DepthwiseRows {
  const float* lines;  // the first row that is read
  int64_t pitch;       // from a row that is read to the next
  int64_t phase;       // from even columns to odd ones, where they lie apart
  float* y;
  int64_t y_pitch;
  int n;  // outputs of a row
};

// Calls block(plane, outputs, rows) for all rows of outputs, some at a time. PHASES: 2 if even and odd columns lie apart.
template <int STRIDE, int PHASES, class Block>
void for_depthwise_rows(const DepthwiseImages& d, const Block& block) {
  constexpr int kOutputs = kStrip / STRIDE;
  static_assert(kStaged / (STRIDE * (kOutputs + openwork::kUnit)) >= openwork::kMaxDepthwise, "the rows of one output are laid out at a time");
  alignas(64) float lines[2][kStaged];
  for (int begin = 0; begin < d.out_w; begin += kOutputs) {
    const int n = std::min(kOutputs, d.out_w - begin);
    // of the strip, on the image's columns
    const int64_t left = int64_t{begin} * STRIDE - d.before, span = int64_t{n - 1} * STRIDE + d.kw;
    const int64_t first = std::clamp<int64_t>(left, 0, d.w), last = std::clamp<int64_t>(left + span, 0, d.w);
    const int64_t phase = (n + kUnit - 1) / kUnit * kUnit + kUnit, pitch = STRIDE * phase;
    const int most = std::min(d.out_h, static_cast<int>((kStaged / pitch - d.kh) / STRIDE) + 1);  // rows of a block of outputs
    const int blocks = (d.out_h + most - 1) / most;
    // what lies beside the image stays zero for all planes
    for (auto& each : lines) std::fill_n(each, ((most - int64_t{1}) * STRIDE + d.kh) * pitch, 0.0f);
    const auto rows_of = [&](int b) { return std::min(most, d.out_h - b * most); };
    const auto lay_out = [&](int p, int b, float* to) {
      const int64_t* const row = d.row + b * most * STRIDE;
      const int rows = (rows_of(b) - 1) * STRIDE + d.kh;
      for (int i = 0; i < rows && blocks > 1; i++)  // a whole plane's rows of zeros stay
        if (row[i] == DepthwiseImages::kNoRow) std::fill_n(to + i * pitch, pitch, 0.0f);
      const int64_t next = p + 1 < d.planes ? int64_t{d.x_plane[p + 1]} - d.x_plane[p] : 0;
      stage<PHASES>({d.x + d.x_plane[p] + first, row, rows, last - first, first - left, phase, pitch, next}, to);
    };
    // A block is laid out while the one before is computed: what was just stored cannot be loaded across the edges of stores.
    lay_out(0, 0, lines[0]);
    int turn = 0;
    for (int p = 0; p < d.planes; p++)
      for (int b = 0; b < blocks; b++, turn ^= 1) {
        if (b + 1 < blocks)
          lay_out(p, b + 1, lines[turn ^ 1]);
        else if (p + 1 < d.planes)
          lay_out(p + 1, 0, lines[turn ^ 1]);
        const DepthwiseRows outputs = {lines[turn], pitch, phase, d.y + d.y_plane[p] + b * most * d.y_pitch + begin, d.y_pitch, n};
        block(p, outputs, rows_of(b));
      }
  }
}

}  // namespace
