// Winograd's convolution: tiles to their values at some points, products there, and back. Included by kernels.inl.

#include "kernels.hpp"
#include "vec.hpp"

namespace {

// Lane l is lane 2 l + ODD of a and b side by side.
template <int ODD>
__attribute__((always_inline)) inline vec every_other(vec a, vec b) {
#if defined(__clang__)
  vec r = {};
  for (int l = 0; l < kLanes; l++) r[l] = 2 * l + ODD < kLanes ? a[(2 * l + ODD) % kLanes] : b[(2 * l + ODD) % kLanes];
  return r;
#else
  ivec from = {};
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; l++) from[l] = 2 * l + ODD;
  return __builtin_shuffle(a, b, from);
#endif
}

// The lanes of a from the second on, then s.
__attribute__((always_inline)) inline vec moved(vec a, float s) {
#if defined(__clang__)
  vec r = {};
  for (int l = 0; l + 1 < kLanes; l++) r[l] = a[l + 1];
  r[kLanes - 1] = s;
  return r;
#else
  ivec from = {};
#pragma GCC unroll 16
  for (int l = 0; l < kLanes; l++) from[l] = l + 1;
  return __builtin_shuffle(a, splat(s), from);
#endif
}

// Along one axis: m + 2 inputs to the values at the points.
template <int M>
__attribute__((always_inline)) inline void to_values(vec (&d)[M + 2]) {
  if constexpr (M == 2) {
    const vec zero = d[2] - d[0], one = d[1] + d[2], minus = d[2] - d[1], infinity = d[3] - d[1];
    d[0] = zero, d[1] = one, d[2] = minus, d[3] = infinity;
  } else {
    constexpr float a = openwork::kWinogradPoint, b = 2 * a;
    const vec zero = d[0] + d[4] - 2.5f * d[2], infinity = d[1] + d[5] - 2.5f * d[3];
    const vec even = d[4] - 2.0f * d[2], odd = d[3] - 2.0f * d[1], even2 = d[4] - 0.5f * d[2], odd2 = d[3] - 0.5f * d[1];
    d[0] = zero, d[1] = even + a * odd, d[2] = even - a * odd, d[3] = even2 + b * odd2, d[4] = even2 - b * odd2, d[5] = infinity;
  }
}

// Along one axis: products at the points to m outputs.
template <int M>
__attribute__((always_inline)) inline void to_outputs(vec (&d)[M + 2]) {
  const vec even = d[1] + d[2], odd = d[1] - d[2];
  if constexpr (M == 2) {
    d[0] += even, d[1] = odd + d[3];
  } else {
    constexpr float a = openwork::kWinogradPoint, b = 2 * a;
    const vec even2 = d[3] + d[4], odd2 = d[3] - d[4];
    d[0] += even + even2, d[1] = a * odd + b * odd2, d[2] = 0.5f * even + 2.0f * even2, d[3] = 0.5f * a * odd + 2.0f * b * odd2 + d[5];
  }
}

// First down the columns, with lanes over columns, then along the rows, with lanes over tiles.
template <int M>
void winograd_values(const openwork::WinogradTiles& t) {
  constexpr int N = M + 2, kRow = (M + 1) * kLanes;  // columns of a vector of tiles, and more
  alignas(64) float rows[N][kRow] = {};
  for (int64_t first = 0; first < t.tiles; first += kLanes) {
    const int64_t tiles = t.tiles - first, wanted = tiles < kLanes ? tiles * M + 2 : kLanes * M + 2;
    const float* const x = t.x + first * M;
    for (int64_t c = 0; c < wanted; c += kLanes) {
      vec d[N];
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) d[i] = i < t.rows ? load_first(x + i * t.pitch + c, t.columns - first * M - c) : vec{};
      to_values<M>(d);
#pragma GCC unroll 8
      for (int i = 0; i < N; i++) store(rows[i] + c, d[i]);
    }
    for (int i = 0; i < N; i++) {
      vec d[N], part[M];
#pragma GCC unroll 4
      for (int v = 0; v < M; v++) part[v] = load(rows[i] + v * kLanes);
      if constexpr (M == 2) {
        d[0] = every_other<0>(part[0], part[1]), d[1] = every_other<1>(part[0], part[1]);
      } else {
        const vec even[2] = {every_other<0>(part[0], part[1]), every_other<0>(part[2], part[3])};
        const vec odd[2] = {every_other<1>(part[0], part[1]), every_other<1>(part[2], part[3])};
        d[0] = every_other<0>(even[0], even[1]), d[1] = every_other<0>(odd[0], odd[1]);
        d[2] = every_other<1>(even[0], even[1]), d[3] = every_other<1>(odd[0], odd[1]);
      }
      d[M] = moved(d[0], rows[i][M * kLanes]), d[M + 1] = moved(d[1], rows[i][M * kLanes + 1]);
      to_values<M>(d);
#pragma GCC unroll 8
      for (int k = 0; k < N; k++) store_first(t.values + (i * N + k) * t.stride + first, d[k], tiles);
    }
  }
}

template <int WIDTH, int TILES>
constexpr bool winograd_fits() {
  return TILES == 1 || TILES * (WIDTH / kLanes) + WIDTH / kLanes + 1 <= kRegisters;
}

// Register block of TILES x WIDTH outputs, as in the dense kernel.
template <int WIDTH, int TILES>
void winograd_f32(const openwork::WinogradProduct& p) {
  constexpr int V = WIDTH / kLanes;
  vec acc[TILES][V] = {};
  const float *x = p.x, *w = p.value, *ahead = p.ahead;
  for (int64_t c = 0; c < p.channels; c++, x += p.x_stride, w += WIDTH, ahead += p.ahead_step) {
    __builtin_prefetch(ahead, 0, 2);
    vec ws[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) ws[v] = load(w + v * kLanes);
#pragma GCC unroll 16
    for (int t = 0; t < TILES; t++) {
      const float xs = x[t];
#pragma GCC unroll 16
      for (int v = 0; v < V; v++) acc[t][v] += xs * ws[v];
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < TILES; t++)
#pragma GCC unroll 16
    for (int v = 0; v < V; v++) store(p.sums + t * p.sum_stride + v * kLanes, acc[t][v]);
}

template <int M>
bool winograd_back(float* sums, int64_t tiles, int64_t stride, int width) {
  constexpr int N = M + 2;
  vec odd = {};  // becomes NaN where a sum is not finite
  for (int64_t t = 0; t < tiles; t++)
    for (int v = 0; v < width; v += kLanes) {
      float* const at = sums + t * stride + v;
      vec column[N][N];
#pragma GCC unroll 8
      for (int j = 0; j < N; j++) {
#pragma GCC unroll 8
        for (int i = 0; i < N; i++) column[j][i] = load(at + (i * N + j) * width);
        to_outputs<M>(column[j]);
      }
      vec total = {};
#pragma GCC unroll 4
      for (int i = 0; i < M; i++) {
        vec row[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; j++) row[j] = column[j][i];
        to_outputs<M>(row);
#pragma GCC unroll 4
        for (int j = 0; j < M; j++) {
          store(at + (i * M + j) * width, row[j]);
          total += row[j];
        }
      }
      odd += total * 0.0f;
    }
  bool finite = true;
  for (int l = 0; l < kLanes; l++) finite &= odd[l] == 0.0f;
  return finite;
}

template <int M>
void winograd_store(const openwork::WinogradPixels& s) {
  const vec lo = splat(s.lo), hi = splat(s.hi);
  for (int64_t column = 0; column < s.columns; column += kLanes)
    for (int64_t r = 0; r < s.rows; r++)
      for (int v = 0; v < s.outputs; v += kLanes) {
        const float* const from = s.sums + column / M * s.stride + r * M * s.width + v;
        const vec bias = load(s.bias + v);
        vec m[kLanes];
#pragma GCC unroll 16
        for (int p = 0; p < kLanes; p++) m[p] = load(from + p / M * s.stride + p % M * s.width) + bias;
        transpose(m);
        const int64_t at = s.at + r * s.pitch + column, count = s.columns - column;
#pragma GCC unroll 16
        for (int o = 0; o < kLanes; o++) {
          if (v + o >= s.outputs) break;
          vec y = m[o];
          if (s.residual) y += load_first(s.arena + s.residual[v + o] + at, count);
          store_first(s.arena_out + s.out[v + o] + at, clamp(y, lo, hi), count);
        }
      }
}

template <int WIDTH, int TILES>
constexpr openwork::WinogradKernel winograd_if_it_fits() {
  if constexpr (winograd_fits<WIDTH, TILES>())
    return winograd_f32<WIDTH, TILES>;
  else
    return nullptr;
}

template <int WIDTH, int... T>
void fill_winograd_tiles(openwork::WinogradKernel* row, std::integer_sequence<int, T...>) {
  ((row[T] = winograd_if_it_fits<WIDTH, T + 1>()), ...);
}

void fill_winograd(openwork::Kernels& k) {
  constexpr auto tiles = std::make_integer_sequence<int, openwork::kMaxColumns>();
  fill_winograd_tiles<16>(k.winograd[0], tiles);
  fill_winograd_tiles<32>(k.winograd[1], tiles);
  k.winograd_values[0] = winograd_values<2>;
  k.winograd_values[1] = winograd_values<4>;
  k.winograd_back[0] = winograd_back<2>;
  k.winograd_back[1] = winograd_back<4>;
  k.winograd_store[0] = winograd_store<2>;
  k.winograd_store[1] = winograd_store<4>;
}

}  // namespace
