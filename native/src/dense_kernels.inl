// Convolutions without zeros: lanes run over outputs, so that no lane falls on padding. Included by kernels.inl.

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using openwork::Dense;

constexpr int kRegisters = OW_ACCUMULATORS >= 24 ? 32 : 16;

template <int WIDTH, int ROWS, int COLUMNS>
constexpr bool dense_fits() {
  constexpr int pixels = ROWS * COLUMNS, vectors = WIDTH / kLanes;
  return pixels == 1 || (pixels <= kLanes && pixels * vectors + vectors + 1 <= kRegisters);  // one pixel always has a kernel
}

// Lane l of row i becomes lane i of row l.
inline void transpose(vec (&m)[kLanes]) {
#pragma GCC unroll 8
  for (int half = 1; half < kLanes; half *= 2) {
    ivec low = {}, high = {};
#pragma GCC unroll 16
    for (int l = 0; l < kLanes; l++) {
      low[l] = l & half ? kLanes + l - half : l;
      high[l] = l & half ? kLanes + l : l + half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) {
      if (i & half) continue;
      const vec a = m[i], b = m[i + half];
#if defined(__clang__)
      vec first = {}, second = {};
      for (int l = 0; l < kLanes; l++) {
        first[l] = l & half ? b[l - half] : a[l];
        second[l] = l & half ? b[l] : a[l + half];
      }
      m[i] = first;
      m[i + half] = second;
#else
      m[i] = __builtin_shuffle(a, b, low);
      m[i + half] = __builtin_shuffle(a, b, high);
#endif
    }
  }
}

// Register block of ROWS x COLUMNS pixels x WIDTH outputs: each loaded vector of weights serves every pixel, each broadcast
// pixel WIDTH outputs. Pixels of a row lie STEP floats apart in x.
template <int WIDTH, int STEP, int ROWS, int COLUMNS>
void dense_f32(const Dense& d, int64_t x_tile, int64_t y_tile) {
  constexpr int V = WIDTH / kLanes, P = ROWS * COLUMNS;
  vec acc[P][V];
#pragma GCC unroll 16
  for (int v = 0; v < V; v++) {
    const vec bias = load(d.bias + v * kLanes);
#pragma GCC unroll 16
    for (int p = 0; p < P; p++) acc[p][v] = bias;
  }
  const float* const arena = d.arena + x_tile;
  const float *w = d.value, *ahead = d.ahead;
  const int32_t* const end = d.offset + d.columns;
  for (const int32_t* offset = d.offset; offset != end; offset++, w += WIDTH, ahead += d.ahead_step) {
    const float* x = arena + *offset;
    __builtin_prefetch(ahead, 0, 2);
    vec ws[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) ws[v] = load(w + v * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < ROWS; r++) {
      const float* row = r == 0 ? x : x + r * d.x_pitch;
#pragma GCC unroll 16
      for (int c = 0; c < COLUMNS; c++) {
        const float xs = row[c * STEP];
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) acc[r * COLUMNS + c][v] += xs * ws[v];
      }
    }
  }

  const vec lo = splat(d.lo), hi = splat(d.hi);
#pragma GCC unroll 16
  for (int v = 0; v < V; v++) {
    vec rows[kLanes];
#pragma GCC unroll 16
    for (int p = 0; p < kLanes; p++) rows[p] = p < P ? acc[p < P ? p : 0][v] : vec{};
    transpose(rows);
    const int outputs = d.outputs - v * kLanes < kLanes ? d.outputs - v * kLanes : kLanes;
#pragma GCC unroll 16
    for (int o = 0; o < kLanes; o++) {
      if (o >= outputs) break;
      vec sum = rows[o];
      if (d.residual) {
        const float* residual = d.arena_out + d.residual[v * kLanes + o] + y_tile;
        vec more = {};
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) more = load_some<COLUMNS>(residual + r * d.y_pitch, more, r * COLUMNS);
        sum += more;
      }
      sum = clamp(sum, lo, hi);
      float* y = d.arena_out + d.out[v * kLanes + o] + y_tile;
#pragma GCC unroll 4
      for (int r = 0; r < ROWS; r++) store_some<COLUMNS>(y + r * d.y_pitch, sum, r * COLUMNS);
    }
  }
}

template <int WIDTH, int STEP, int ROWS, int COLUMNS>
constexpr openwork::DenseKernel dense_if_it_fits() {
  if constexpr (dense_fits<WIDTH, ROWS, COLUMNS>())
    return dense_f32<WIDTH, STEP, ROWS, COLUMNS>;
  else
    return nullptr;
}

template <int WIDTH, int STEP, int ROWS, int... C>
void fill_dense_row(openwork::DenseKernel* row, std::integer_sequence<int, C...>) {
  ((row[C] = dense_if_it_fits<WIDTH, STEP, ROWS, C + 1>()), ...);
}

template <int WIDTH, int STEP>
void fill_dense(openwork::DenseKernel (*rows)[openwork::kMaxColumns]) {
  constexpr auto columns = std::make_integer_sequence<int, openwork::kMaxColumns>();
  fill_dense_row<WIDTH, STEP, 1>(rows[0], columns);
  fill_dense_row<WIDTH, STEP, 2>(rows[1], columns);
  fill_dense_row<WIDTH, STEP, 3>(rows[2], columns);
}

}  // namespace
