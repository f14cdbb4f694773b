// The kernels, written once over `vec`; included by one kernels_*.cpp per instruction set.
// Names: <family>_f32, tile = mb rows x nv vectors (taps) or width outputs x samples (rows).

#include <algorithm>
#include <limits>
#include <type_traits>
#include <utility>

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using openwork::kUnit;
using openwork::Rows;
using openwork::Taps;

// Weights are read once, from far away: they are asked for this many floats before their use, across the ends of blocks. The
// hardware's own prefetcher stops at every page.
constexpr int kWeightsAhead = 1024;

}  // namespace

#include "activations.inl"

namespace {

// Register block of MB rows that share their taps x NV vectors of positions: each loaded x serves MB rows, each broadcast
// weight serves NV vectors. Blocks are the inner loop, so that the x panel of this tile stays in L1/L2 across them.
template <int MB, int NV>
void taps_f32(const Taps& t, int64_t q, int block_begin, int block_end) {
  const vec lo = splat(t.lo), hi = splat(t.hi);
  const float* const x_tile = t.arena + q;
  uint32_t inside[NV];
  for (int v = 0; v < NV; v++) {
    const uint64_t at = static_cast<uint64_t>(q) + static_cast<uint64_t>(v * kLanes);
    inside[v] = (static_cast<uint32_t>(t.inside[at / kUnit]) >> (at % kUnit)) & kAllLanes;
  }
  for (int b = block_begin; b < block_end; b++) {
    vec acc[MB][NV];
    const float* bias = t.bias + static_cast<int64_t>(b) * MB;
#pragma GCC unroll 16
    for (int m = 0; m < MB; m++) {
      const float* begun = t.arena_out + t.out[static_cast<int64_t>(b) * MB + m] + q;
#pragma GCC unroll 16
      for (int v = 0; v < NV; v++) acc[m][v] = t.more ? load(begun + v * kLanes) : splat(t.scale ? 0.0f : bias[m]);
    }

    const float* w = t.value + static_cast<int64_t>(t.begin[b]) * MB;
    const int32_t* const offset_begin = t.offset + t.list[b] + t.begin[b];
    const int32_t* const offset_end = t.offset + t.list[b] + t.end[b];
    for (const int32_t* offset = offset_begin; offset != offset_end; offset++, w += MB) {
      const float* x = x_tile + *offset;
      __builtin_prefetch(w + kWeightsAhead, 0, 2);
      vec xs[NV];
#pragma GCC unroll 16
      for (int v = 0; v < NV; v++) xs[v] = load(x + v * kLanes);
#pragma GCC unroll 16
      for (int m = 0; m < MB; m++)
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) acc[m][v] += w[m] * xs[v];
    }

#pragma GCC unroll 16
    for (int m = 0; m < MB; m++) {
      const int64_t row = static_cast<int64_t>(b) * MB + m;
      float* y = t.arena_out + t.out[row] + q;
      const float* residual = t.residual ? t.arena + t.residual[row] + q : nullptr;
#pragma GCC unroll 16
      for (int v = 0; v < NV; v++) {
        vec r = acc[m][v];
        if (t.scale) r = r * splat(t.scale[row]) + splat(bias[m]);
        if (residual) r += load(residual + v * kLanes);
        r = clamp(r, lo, hi);
        store(y + v * kLanes, keep(r, inside[v]));
      }
    }
  }
}

// Fully connected layers have few positions, so the lanes run over outputs. One sample alone would leave WIDTH/lanes
// dependent chains; its columns are therefore summed in independent parts.
template <int WIDTH, int SAMPLES, class Columns>
void rows_panels(const Rows& r, Columns columns, int64_t sample, int panel_begin, int panel_end) {
  constexpr bool LISTED = !std::is_null_pointer_v<Columns>;
  constexpr int NV = WIDTH / kLanes;
  constexpr int PARTS = SAMPLES * NV == 1 ? 4 : SAMPLES * NV < 8 ? 2 : 1;
  const vec lo = splat(r.lo), hi = splat(r.hi);
  const float* x = r.x + sample * r.x_stride;
  for (int p = panel_begin; p < panel_end; p++) {
    vec acc[PARTS][SAMPLES][NV];
    for (int s = 0; s < SAMPLES; s++)
      for (int v = 0; v < NV; v++) {
        acc[0][s][v] = r.scale ? vec{} : load(r.bias + static_cast<int64_t>(p) * WIDTH + v * kLanes);
        for (int h = 1; h < PARTS; h++) acc[h][s][v] = vec{};
      }
    int32_t k = r.start[p];
    const int32_t end = r.end[p];
    const int64_t shift = int64_t{r.first[p]} - k;  // from a column's place in the panel to its place in the list
    const auto number = [&](int64_t at) -> int64_t {
      if constexpr (LISTED)
        return columns[at];
      else
        return at;
    };
    const auto column = [&](int32_t at, int h) __attribute__((always_inline)) {
      const float* w = r.value + static_cast<int64_t>(at) * WIDTH;
      vec ws[NV];
#pragma GCC unroll 16
      for (int v = 0; v < NV; v++) ws[v] = load(w + v * kLanes);
#pragma GCC unroll 16
      for (int s = 0; s < SAMPLES; s++) {
        const float xs = x[s * r.x_stride + number(shift + at)];
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) acc[h][s][v] += xs * ws[v];
      }
    };
    for (; k + PARTS <= end; k += PARTS)
#pragma GCC unroll 4
      for (int h = 0; h < PARTS; h++) column(k + h, h);
    for (; k < end; k++) column(k, 0);
    for (int s = 0; s < SAMPLES; s++)
      for (int v = 0; v < NV; v++) {
        vec sum = acc[0][s][v];
        for (int h = 1; h < PARTS; h++) sum += acc[h][s][v];
        const int64_t o = static_cast<int64_t>(p) * WIDTH + v * kLanes;
        if (r.scale) sum = sum * load(r.scale + o) + load(r.bias + o);
        store(r.y + (sample + s) * r.y_stride + o, clamp(sum, lo, hi));
      }
  }
}

}  // namespace

#include "narrow_rows.inl"

namespace {

template <int WIDTH, int SAMPLES>
void rows_f32(const Rows& r, int64_t sample, int panel_begin, int panel_end) {
  if constexpr (WIDTH < kLanes) {
    if (r.short_index)
      narrow_panels<WIDTH, SAMPLES>(r, r.short_index, sample, panel_begin, panel_end);
    else
      narrow_panels<WIDTH, SAMPLES>(r, r.index, sample, panel_begin, panel_end);
  } else if (WIDTH < kUnit && r.short_index) {
    rows_panels<WIDTH, SAMPLES>(r, r.short_index, sample, panel_begin, panel_end);
  } else if (WIDTH < kUnit || r.index) {
    rows_panels<WIDTH, SAMPLES>(r, r.index, sample, panel_begin, panel_end);
  } else {
    rows_panels<WIDTH, SAMPLES>(r, nullptr, sample, panel_begin, panel_end);
  }
}

// Short vectors whatever the instruction set: splitting works on short rows, where wider ones would not fit.
template <int N>
struct Short {
  typedef float type __attribute__((vector_size(4 * N)));
  typedef float unaligned __attribute__((vector_size(4 * N), aligned(4), may_alias));
};

// x[0], x[STRIDE], ..., x[(N - 1) STRIDE], reading no float beyond the last: the row may end there.
template <int N, int STRIDE>
__attribute__((always_inline)) inline typename Short<N>::type strided(const float* x) {
  using type = typename Short<N>::type;
  const type low = *reinterpret_cast<const typename Short<N>::unaligned*>(x);
  if constexpr (STRIDE == 1) {
    return low;
  } else {
    static_assert(STRIDE == 2 && (N == 4 || N == 8));
    const type high = *reinterpret_cast<const typename Short<N>::unaligned*>(x + N - 1);
    if constexpr (N == 8)
      return __builtin_shufflevector(low, high, 0, 2, 4, 6, 9, 11, 13, 15);
    else
      return __builtin_shufflevector(low, high, 0, 2, 5, 7);
  }
}

// Four sums at a time, so that additions overlap.
template <class F>
float reduced(const F& at, int64_t n) {
  vec acc[4] = {};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int v = 0; v < 4; v++) at(acc[v], i + v * kLanes);
  for (; i + kLanes <= n; i += kLanes) at(acc[0], i);
  const vec all = (acc[0] + acc[1]) + (acc[2] + acc[3]);
  float total = 0;
  for (int l = 0; l < kLanes; l++) total += all[l];
  for (; i < n; i++) at(total, i);
  return total;
}

template <class T>
T load_as(const float* p) {
  if constexpr (sizeof(T) == sizeof(float))
    return *p;
  else
    return load(p);
}

float sum(const float* x, int64_t n) {
  return reduced([x]<class T>(T& acc, int64_t i) { acc += load_as<T>(x + i); }, n);
}

float dot(const float* x, const float* y, int64_t n) {
  return reduced([x, y]<class T>(T& acc, int64_t i) { acc += load_as<T>(x + i) * load_as<T>(y + i); }, n);
}

double fma_peak(int64_t iterations) {
  vec acc[12];
  for (int i = 0; i < 12; i++) acc[i] = splat(static_cast<float>(i));
  const vec a = splat(0.999f), b = splat(1e-3f);
  for (int64_t n = 0; n < iterations; n++) {
#pragma GCC unroll 16
    for (int i = 0; i < 12; i++) acc[i] = acc[i] * a + b;
  }
  float total = 0;
  for (int i = 0; i < 12; i++) total += acc[i][0];
  asm volatile("" : : "m"(total));
  return 2.0 * kLanes * 12 * static_cast<double>(iterations);
}

}  // namespace

#include "binary_kernels.inl"
#include "dense_kernels.inl"
#include "winograd_kernels.inl"
#include "balanced_kernels.inl"
#include "circulant_kernels.inl"
#include "image_kernels.inl"
#include "pool_kernels.inl"
#include "depthwise_kernels.inl"
#include "gates.inl"
#include "token_kernels.inl"
#include "quad_kernels.inl"

namespace {

constexpr bool fits(int mb, int nv) {
#if defined(__aarch64__)
  // No operand comes from memory: with several rows the tile's x wait in registers too, and one holds the weights.
  if (mb > 1 && mb * nv + nv + 1 > 32) return false;
#endif
  return mb * nv <= OW_ACCUMULATORS;
}

template <int MB, int NV>
constexpr openwork::TapsKernel taps_if_it_fits() {
  if constexpr (fits(MB, NV))
    return taps_f32<MB, NV>;
  else
    return nullptr;
}

template <int MB>
void fill_taps(openwork::TapsKernel* row) {
  row[0] = taps_if_it_fits<MB, 1>();
  row[1] = taps_if_it_fits<MB, 2>();
  row[2] = taps_if_it_fits<MB, 3>();
  row[3] = taps_if_it_fits<MB, 4>();
  row[4] = taps_if_it_fits<MB, 5>();
  row[5] = taps_if_it_fits<MB, 6>();
  row[6] = taps_if_it_fits<MB, 7>();
  row[7] = taps_if_it_fits<MB, 8>();
  row[8] = taps_if_it_fits<MB, 9>();
  row[9] = taps_if_it_fits<MB, 10>();
  row[10] = taps_if_it_fits<MB, 11>();
  row[11] = taps_if_it_fits<MB, 12>();
}

template <int WIDTH>
void fill_rows(openwork::RowsKernel* row) {
  row[0] = rows_f32<WIDTH, 1>;
  row[1] = rows_f32<WIDTH, 2>;
  row[2] = rows_f32<WIDTH, 3>;
  row[3] = rows_f32<WIDTH, 4>;
  row[4] = rows_f32<WIDTH, 5>;
  row[5] = rows_f32<WIDTH, 6>;
}

openwork::Kernels table(const char* name) {
  openwork::Kernels k = {};
  k.name = name;
  k.lanes = kLanes;
  fill_taps<1>(k.taps[0]);
  fill_taps<2>(k.taps[1]);
  fill_taps<4>(k.taps[2]);
  fill_taps<8>(k.taps[3]);
  fill_dense<16, 1>(k.dense[0][0]);
  fill_dense<16, 2>(k.dense[0][1]);
  fill_dense<32, 1>(k.dense[1][0]);
  fill_dense<32, 2>(k.dense[1][1]);
  fill_winograd(k);
  fill_rows<1>(k.rows[0]);
  fill_rows<2>(k.rows[1]);
  fill_rows<4>(k.rows[2]);
  fill_rows<8>(k.rows[3]);
  fill_rows<16>(k.rows[4]);
  fill_rows<32>(k.rows[5]);
  fill_rows<64>(k.rows[6]);
  fill_balanced(k);
  k.circulant_values = circulant_values;
  k.circulant = circulant_f32;
  fill_activations(k.activate);
  fill_binaries(k.binary);
  k.scale = scale;
  k.max_pool = pool<Maximum>;
  k.sum_pool = pool<Sum>;
  k.depthwise = depthwise;
  k.copy_rows = copy_rows;
  k.interleave = interleave;
  k.widen = widen;
  k.mix = mix;
  k.sum = sum;
  k.dot = dot;
  k.gates[0] = gates_f32<Cell::gru>;
  k.gates[1] = gates_f32<Cell::lstm>;
  k.gates[2] = gates_f32<Cell::tanh>;
  k.gates[3] = gates_f32<Cell::relu>;
  k.gather = gather;
  k.attention = attention;
  k.layer_norm = layer_norm;
  k.fma_peak = fma_peak;
  fill_quads(k.quads);
  return k;
}

}  // namespace
