// Block-circulant layers by the discrete Fourier transform. Included by kernels.inl.
//
// Transforms are of real values: rows 0 to block / 2 hold the real parts of the frequencies, row block - k the imaginary part of
// frequency k. Lanes are blocks, so no transform moves anything between lanes.

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using openwork::Circulant;

// f(v) for the vectors of kUnit lanes.
template <class F>
__attribute__((always_inline)) inline void each_vector(const F& f) {
#pragma GCC unroll 4
  for (int v = 0; v < kUnit; v += kLanes) f(v);
}

// Rows of values, in bit-reversed order, to their frequencies: two transforms of half the size are joined, again and again.
void to_frequencies(float* rows, int64_t stride, int block, const float* turns) {
  for (int size = 2; size <= block; size *= 2) {
    const int half = size / 2;
    for (int begin = 0; begin < block; begin += size) {
      float* const at = rows + begin * stride;
      each_vector([=](int v) {
        float *const a = at + v, *const b = at + half * stride + v, *const c = at + (half + half / 2) * stride + v;
        const vec even = load(a), odd = load(b);
        store(a, even + odd);
        store(b, even - odd);
        if (half > 1) store(c, -load(c));
      });
      for (int k = 1; k < half / 2; k++) {
        const float* const turn = turns + 2 * k * (openwork::kMaxCirculant / size);
        each_vector([=](int v) {
          float *const a = at + k * stride + v, *const b = at + (half - k) * stride + v;
          float *const c = at + (half + k) * stride + v, *const d = at + (size - k) * stride + v;
          const vec odd = load(c), odd_i = load(d), even = load(a), even_i = load(b);
          const vec turned = turn[0] * odd + turn[1] * odd_i, turned_i = turn[0] * odd_i - turn[1] * odd;
          store(a, even + turned);
          store(b, even - turned);
          store(c, turned_i - even_i);
          store(d, turned_i + even_i);
        });
      }
    }
  }
}

// And back, times `block`, in bit-reversed order.
void from_frequencies(float* rows, int64_t stride, int block, const float* turns) {
  for (int size = block; size >= 2; size /= 2) {
    const int half = size / 2;
    for (int begin = 0; begin < block; begin += size) {
      float* const at = rows + begin * stride;
      each_vector([=](int v) {
        float *const a = at + v, *const b = at + half * stride + v;
        const vec first = load(a), second = load(b);
        store(a, first + second);
        store(b, first - second);
        if (half > 1) {
          float *const c = at + half / 2 * stride + v, *const d = at + (half + half / 2) * stride + v;
          store(c, 2.0f * load(c));
          store(d, -2.0f * load(d));
        }
      });
      for (int k = 1; k < half / 2; k++) {
        const float* const turn = turns + 2 * k * (openwork::kMaxCirculant / size);
        each_vector([=](int v) {
          float *const a = at + k * stride + v, *const b = at + (half - k) * stride + v;
          float *const c = at + (half + k) * stride + v, *const d = at + (size - k) * stride + v;
          const vec turned = load(a) - load(b), even = load(a) + load(b), turned_i = load(d) + load(c), even_i = load(d) - load(c);
          store(a, even);
          store(b, even_i);
          store(c, turn[0] * turned - turn[1] * turned_i);
          store(d, turn[1] * turned + turn[0] * turned_i);
        });
      }
    }
  }
}

int reversed(int n, int block) {
  int found = 0;
  for (int bit = 1; bit < block; bit *= 2) found = 2 * found + (n & bit ? 1 : 0);
  return found;
}

// Frequencies of x, lanes over blocks of inputs.
void circulant_values(const Circulant& c) {
  int32_t begin[kUnit];
  for (int l = 0; l < kUnit; l++) begin[l] = l * c.block;
  for (int64_t j = 0; j < c.inputs; j += kUnit) {
    for (int n = 0; n < c.block; n++)
      each_vector([&](int v) {
        const int64_t count = c.inputs - j - v;
        const float* const x = c.x + j * c.block + n;
        const vec found = count >= kLanes ? gathered(x, begin + v) : count > 0 ? gathered_first(x, begin + v, static_cast<int>(count)) : vec{};
        store(c.values + reversed(n, c.block) * c.stride + j + v, found);
      });
    to_frequencies(c.values + j, c.stride, c.block, c.turns);
  }
}

// Sums over the blocks of inputs of products of frequencies, lanes over blocks of outputs: of one complex frequency with parts a
// and b, or of two real ones.
template <bool COMPLEX>
void circulant_products(const float* a, const float* b, const float* w, int64_t inputs, float* sum_a, float* sum_b) {
  constexpr int NV = kUnit / kLanes > 2 ? 2 : kUnit / kLanes, SUMS = COMPLEX ? 4 : 2;
  constexpr int PARTS = NV * SUMS < 4 ? 4 : NV * SUMS < 8 ? 2 : 1;  // chains of additions that do not wait for each other
  for (int first = 0; first < kUnit; first += NV * kLanes) {
    vec acc[PARTS][SUMS][NV] = {};
    const auto column = [&](int64_t j, int part) __attribute__((always_inline)) {
      const float* const at = w + j * 2 * kUnit + first;
      __builtin_prefetch(at + kWeightsAhead, 0, 2);
      __builtin_prefetch(at + kWeightsAhead + kUnit, 0, 2);
      const float xa = a[j], xb = b[j];
#pragma GCC unroll 2
      for (int v = 0; v < NV; v++) {
        const vec wa = load(at + v * kLanes), wb = load(at + kUnit + v * kLanes);
        acc[part][0][v] += xa * wa;
        acc[part][1][v] += xb * wb;
        if constexpr (COMPLEX) {
          acc[part][2][v] += xa * wb;
          acc[part][3][v] += xb * wa;
        }
      }
    };
    int64_t j = 0;
    for (; j + PARTS <= inputs; j += PARTS)
#pragma GCC unroll 4
      for (int part = 0; part < PARTS; part++) column(j + part, part);
    for (; j < inputs; j++) column(j, 0);
    for (int v = 0; v < NV; v++) {
      vec sum[SUMS];
      for (int s = 0; s < SUMS; s++) {
        sum[s] = acc[0][s][v];
        for (int part = 1; part < PARTS; part++) sum[s] += acc[part][s][v];
      }
      store(sum_a + first + v * kLanes, COMPLEX ? sum[0] - sum[1] : sum[0]);
      store(sum_b + first + v * kLanes, COMPLEX ? sum[SUMS - 2] + sum[SUMS - 1] : sum[1]);
    }
  }
}

bool circulant_f32(const Circulant& c, int64_t panel) {
  alignas(64) float sums[openwork::kMaxCirculant * kUnit];
  const int half = c.block / 2;
  const float* w = c.spectrum + panel * c.block * c.inputs * kUnit;
  circulant_products<false>(c.values, c.values + half * c.stride, w, c.inputs, sums, sums + half * kUnit);
  for (int k = 1; k < half; k++) {
    w += 2 * c.inputs * kUnit;
    const int imaginary = c.block - k;
    circulant_products<true>(c.values + k * c.stride, c.values + imaginary * c.stride, w, c.inputs, sums + k * kUnit, sums + imaginary * kUnit);
  }
  from_frequencies(sums, kUnit, c.block, c.turns);

  const int64_t begin = panel * kUnit * c.block, count = std::min<int64_t>(kUnit * c.block, c.outputs - begin);
  const vec lo = splat(c.lo), hi = splat(c.hi);
  vec odd = {};  // becomes NaN where a sum is not finite
  for (int64_t o = 0; o < count; o += kLanes) {
    const int64_t rest = count - o;
    vec y = rest >= kLanes ? gathered(sums, c.place + o) : gathered_first(sums, c.place + o, static_cast<int>(rest));
    y += load_first(c.bias + begin + o, rest);
    odd += y * 0.0f;
    store_first(c.y + begin + o, clamp(y, lo, hi), rest);
  }
  bool finite = true;
  for (int l = 0; l < kLanes; l++) finite &= odd[l] == 0.0f;
  return finite;
}

}  // namespace
