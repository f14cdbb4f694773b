// Kernels over tokens: positions are tokens, channels are features. Included by kernels.inl.

#include "kernels.hpp"
#include "pixels.hpp"
#include "quad_vec.hpp"
#include "vec_math.hpp"

namespace {

using openwork::Attention;
using openwork::kMaxHead;
using openwork::kQuad;
using openwork::Norm;

constexpr int kRows = OW_ACCUMULATORS >= 24 ? 8 : 4;  // keys or channels in a register block
constexpr int kKeys = 64;                             // keys whose scores are held at a time

inline vec larger(vec a, vec b) { return a > b ? a : b; }

// Softmax runs along with the keys (Milakov and Gimelshein 2018, arXiv:1805.02867; as FlashAttention uses it): scores of a
// block of keys, the running maximum and sum of each query, and a running output that is rescaled when the maximum grows. All
// that is held is a few kilobytes on the stack, whatever the length.
template <int NV>
void attention_tile(const Attention& a, int64_t begin, int64_t count) {
  constexpr int kWidth = NV * kLanes;
  alignas(64) float scores[kKeys][kWidth];
  alignas(64) float sums[kMaxHead][kWidth];
  const vec lowest = splat(-__builtin_inff());
  vec top[NV], total[NV];
  for (int v = 0; v < NV; v++) top[v] = lowest, total[v] = vec{};

  for (int64_t key = 0; key < a.keys; key += kKeys) {
    const int keys = static_cast<int>(a.keys - key < kKeys ? a.keys - key : kKeys);
    for (int group = 0; group < keys; group += kRows) {
      vec acc[kRows][NV] = {};
      for (int c = 0; c < a.channels; c++) {
        const float* x = a.arena + a.q[c] + begin;
        const float* w = a.arena + a.k[c] + key + group;
        vec xs[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) xs[v] = load(x + v * kLanes);
#pragma GCC unroll 8
        for (int m = 0; m < kRows; m++)
#pragma GCC unroll 4
          for (int v = 0; v < NV; v++) acc[m][v] += w[m] * xs[v];
      }
      const int rows = keys - group < kRows ? keys - group : kRows;
#pragma GCC unroll 8
      for (int m = 0; m < kRows; m++) {
        if (m >= rows) break;
        const int64_t at = key + group + m;
        const float flag = a.flags ? (a.flags[at] ? a.on : a.off) : 0.0f;
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
          vec s = acc[m][v] * a.scale + flag;
          if (a.bias) s += load(a.bias + at * a.bias_stride + begin + v * kLanes);
          store(&scores[group + m][v * kLanes], s);
        }
      }
    }
    vec shrink[NV];
    for (int v = 0; v < NV; v++) {
      vec best = top[v];
      for (int j = 0; j < keys; j++) best = larger(load(&scores[j][v * kLanes]), best);
      const vec origin = best == lowest ? vec{} : best;  // where every key so far is masked
      shrink[v] = exp_not_positive(top[v] - origin);
      top[v] = best;
      vec sum = total[v] * shrink[v];
      for (int j = 0; j < keys; j++) {
        const vec p = exp_not_positive(load(&scores[j][v * kLanes]) - origin);
        store(&scores[j][v * kLanes], p);
        sum += p;
      }
      total[v] = sum;
    }
    for (int c = 0; c < a.channels; c += kRows) {
      const int rows = a.channels - c < kRows ? a.channels - c : kRows;
      const float* w[kRows];
      for (int m = 0; m < kRows; m++) w[m] = a.arena + a.v[c + (m < rows ? m : 0)] + key;
      vec acc[kRows][NV];
#pragma GCC unroll 8
      for (int m = 0; m < kRows; m++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) acc[m][v] = key && m < rows ? load(&sums[c + m][v * kLanes]) * shrink[v] : vec{};
      for (int j = 0; j < keys; j++) {
        vec xs[NV];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) xs[v] = load(&scores[j][v * kLanes]);
#pragma GCC unroll 8
        for (int m = 0; m < kRows; m++)
#pragma GCC unroll 4
          for (int v = 0; v < NV; v++) acc[m][v] += w[m][j] * xs[v];
      }
#pragma GCC unroll 8
      for (int m = 0; m < kRows; m++)
        if (m < rows)
          for (int v = 0; v < NV; v++) store(&sums[c + m][v * kLanes], acc[m][v]);
    }
  }

  vec scale[NV];
  for (int v = 0; v < NV; v++) scale[v] = total[v] == vec{} ? vec{} : 1.0f / total[v];  // all masked: zero, as in PyTorch
  for (int c = 0; c < a.channels; c++) {
    float* y = a.arena_out + a.out[c] + begin;
    for (int v = 0; v < NV; v++) {
      const vec r = load(&sums[c][v * kLanes]) * scale[v];
      const int64_t left = count - v * kLanes;
      if (left >= kLanes)
        store(y + v * kLanes, r);
      else  // the positions behind belong to padding or to the next sample
        for (int l = 0; l < left; l++) y[v * kLanes + l] = r[l];
    }
  }
}

void attention(const Attention& a, int64_t begin, int64_t count) {
  static_assert(openwork::kMaxQueries == 3);
  if (count <= kLanes) return attention_tile<1>(a, begin, count);
  if (count <= 2 * kLanes) return attention_tile<2>(a, begin, count);
  return attention_tile<3>(a, begin, count);
}

// Four sums at a time, so that additions overlap; two passes for the variance, since one would cancel. Whatever is the same for all
// channels is read before: stores might lie anywhere, for all that the compiler knows.
template <bool FLOATS, bool QUADS, bool TOKENS>
inline void layer_norm(const Norm& n, int64_t unit_begin, int64_t unit_end) {
  constexpr int64_t kUnit = openwork::kUnit;
  const int channels = n.channels;
  const int32_t *const from = n.x, *const to = n.y, *const quads = n.quads;
  const float *const weight = n.weight, *const bias = n.bias;
  const ByteRange range(n.lo, n.hi);
  for (int64_t q = unit_begin * kUnit; q < unit_end * kUnit; q += kLanes) {
    const uint32_t inside = static_cast<uint32_t>(n.inside[q / kUnit]) >> (q % kUnit) & kAllLanes;
    const float* const x = n.arena + q;
    float* const y = n.arena_out + q;
    vec sum[4] = {};
    int c = 0;
    for (; c + 4 <= channels; c += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) sum[i] += load(x + from[c + i]);
    for (; c < channels; c++) sum[0] += load(x + from[c]);
    const float share = 1.0f / static_cast<float>(channels);
    const vec mean = ((sum[0] + sum[1]) + (sum[2] + sum[3])) * share;
    vec square[4] = {};
    for (c = 0; c + 4 <= channels; c += 4)
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        const vec d = load(x + from[c + i]) - mean;
        square[i] += d * d;
      }
    for (; c < channels; c++) {
      const vec d = load(x + from[c]) - mean;
      square[0] += d * d;
    }
    const vec variance = ((square[0] + square[1]) + (square[2] + square[3])) * share + n.eps;
    const vec scale = 1.0f / square_root(variance);
    const auto value = [&](int at) __attribute__((always_inline)) { return (load(x + from[at]) - mean) * scale * weight[at] + bias[at]; };
    vec inverse = splat(n.inverse);
    if constexpr (TOKENS) {
      const TokenScale token(largest_magnitude(channels, value), n.hi);
      store(y + n.token, keep(token.scale, inside));
      inverse = token.inverse;
    }
    const auto normal = [&](int at) __attribute__((always_inline)) {
      const vec found = value(at);
      if constexpr (FLOATS) store(y + to[at], keep(found, inside));
      return found;
    };
    if constexpr (QUADS) {
      const auto put = [&](int at, const vec(&four)[kQuad], uint32_t there) __attribute__((always_inline)) {
        const ivec found = rounded_quads(four[0] * inverse, four[1] * inverse, four[2] * inverse, four[3] * inverse, range);
        store_quads(y + quads[at / kQuad], keep_quads(found & splat_quad(static_cast<int32_t>(there)), inside));
      };
      for (c = 0; c + kQuad <= channels; c += kQuad) {
        const vec four[kQuad] = {normal(c), normal(c + 1), normal(c + 2), normal(c + 3)};
        put(c, four, ~0u);
      }
      vec rest[kQuad] = {};
      for (int i = 0; c + i < channels; i++) rest[i] = normal(c + i);
      if (c < channels) put(c, rest, (1u << (8 * (channels - c))) - 1);
    } else {
      for (c = 0; c < channels; c++) normal(c);
    }
  }
}

void layer_norm(const Norm& n, int64_t unit_begin, int64_t unit_end) {
  if (!n.quads) return layer_norm<true, false, false>(n, unit_begin, unit_end);
  if (n.token >= 0) return n.y ? layer_norm<true, true, true>(n, unit_begin, unit_end) : layer_norm<false, true, true>(n, unit_begin, unit_end);
  return n.y ? layer_norm<true, true, false>(n, unit_begin, unit_end) : layer_norm<false, true, false>(n, unit_begin, unit_end);
}

}  // namespace
