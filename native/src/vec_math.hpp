// Functions of a vector, for whatever vec.hpp defines `vec` to be. The coefficients are least-maximum fits of our own.
// Errors are against the exact function, measured over every exponent (tests/native/test_math.py).
#pragma once

#include "vec.hpp"

namespace {

template <int N>
inline vec polynomial(vec x, const float (&c)[N]) {
  vec r = splat(c[N - 1]);
#pragma GCC unroll 16
  for (int i = N - 2; i >= 0; i--) r = r * x + splat(c[i]);
  return r;
}

inline vec absolute(vec x) { return (vec)((ivec)x & (ivec{} + 0x7fffffff)); }
inline vec with_sign_of(vec magnitude, vec sign) { return (vec)((ivec)magnitude | ((ivec)sign & (ivec{} + static_cast<int32_t>(0x80000000u)))); }

// e^x = power * 2^n for x between -87.4 and 88.8: n is whole, power between 0.7 and 1.42.
struct Exponential {
  vec power, n;
};

inline Exponential exponential(vec x) {
  const vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to a whole number
  const vec n = (x * 1.44269504f + magic) - magic;
  const vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 in two parts
  constexpr float c[] = {5.000000027e-01f, 1.666657701e-01f, 4.166637525e-02f, 8.363175254e-03f, 1.394111328e-03f};
  return {(r * r) * polynomial(r, c) + r + 1.0f, n};
}

constexpr float kLowest = -87.33654f;  // e^x is the smallest normal number

// e^x within 2 units in the last place; below e^-87 zero, above e^88.7 infinity, NaN for NaN.
inline vec exp(vec x) {
  const vec low = splat(kLowest), high = splat(88.72283f);
  const ivec zero = x < low, infinite = x > high;
  const auto [power, n] = exponential(zero ? low : (infinite ? high : x));
  // 2^n in two factors, since n may be 128
  const ivec whole = __builtin_convertvector(n != n ? vec{} : n, ivec), half = whole >> 1;
  const vec result = power * (vec)((half + 127) << 23) * (vec)((whole - half + 127) << 23);
  return zero ? vec{} : (infinite ? splat(__builtin_inff()) : result);
}

// The same for x that is not positive, or NaN: half the work, for softmax.
inline vec exp_not_positive(vec x) {
  const vec low = splat(kLowest);
  const ivec zero = x < low;
  const auto [power, n] = exponential(zero ? low : x);
  const ivec whole = __builtin_convertvector(n, ivec);
  return zero ? vec{} : power * (vec)((whole + 127) << 23);
}

// 1 / (1 + e^-x) within 2e-7.
inline vec sigmoid(vec x) { return 1.0f / (1.0f + exp(-x)); }

// tanh within 2e-7, relative also near zero.
inline vec tanh(vec x) {
  const vec a = absolute(x);
  constexpr float c[] = {9.999999961e-01f, -3.333326053e-01f, 1.333112753e-01f, -5.372106788e-02f, 2.059098793e-02f, -5.659988599e-03f};
  const vec small = x * polynomial(x * x, c);
  const vec large = with_sign_of(1.0f - 2.0f / (exp(a + a) + 1.0f), x);
  return a < splat(0.625f) ? small : large;
}

// erf within 2e-7, relative also near zero. Its tail is 1 - e^-q with a polynomial q, exact to rounding beyond 4.
inline vec erf(vec x) {
  const vec a = absolute(x), b = a > splat(4.0f) ? splat(4.0f) : a;
  constexpr float near[] = {1.128379166e+00f, -3.761262582e-01f, 1.128358515e-01f, -2.685381193e-02f, 5.188327674e-03f, -8.010193524e-04f, 7.853861017e-05f};
  constexpr float far[] = {7.484109946e-04f, 1.125956980e+00f, 6.390471428e-01f, 1.033555451e-01f, -2.263865189e-02f, 3.441250807e-03f, -3.181897810e-04f, 1.334549137e-05f};
  const vec small = x * polynomial(x * x, near);
  const vec large = with_sign_of(1.0f - exp(-polynomial(b, far)), x);
  return a < splat(1.0f) ? small : (x != x ? x : large);
}

// e^x - 1 for x <= 0 within 1e-7, relative also near zero.
inline vec exp_minus_1(vec x) {
  const vec low = splat(-87.0f), magic = splat(12582912.0f);
  const vec y = x < low ? low : x;
  const vec n = (y * 1.44269504f + magic) - magic;
  const vec r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  constexpr float c[] = {4.999999702e-01f, 1.666654348e-01f, 4.166720062e-02f, 8.366520517e-03f, 1.388252014e-03f};
  const vec power = (vec)((__builtin_convertvector(n != n ? vec{} : n, ivec) + 127) << 23);
  return ((r * r) * polynomial(r, c) + r) * power + (power - 1.0f);
}

// log(1 + e) for e in [0, 1] within 2e-7, relative also near zero: twice the inverse hyperbolic tangent of e / (2 + e).
inline vec log_of_1_plus(vec e) {
  const vec s = e / (2.0f + e), z = s * s;
  constexpr float c[] = {3.333320618e-01f, 2.001084983e-01f, 1.399956942e-01f, 1.401223093e-01f};
  return 2.0f * (polynomial(z, c) * z * s + s);
}

inline vec square_root(vec x) {
#if OW_LANES == 16 && defined(__AVX512F__)
  return (vec)_mm512_sqrt_ps((__m512)x);
#elif OW_LANES == 8 && defined(__AVX__)
  return (vec)_mm256_sqrt_ps((__m256)x);
#elif OW_LANES == 4 && defined(__SSE__)
  return (vec)_mm_sqrt_ps((__m128)x);
#else
  for (int i = 0; i < kLanes; i++) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// n / d within 2 units in the last place, for d between 1 and 1e9.
inline vec quotient(vec n, vec d) {
#if OW_LANES == 16 && defined(__AVX512F__)
  const vec near = (vec)_mm512_rcp14_ps((__m512)d);  // a division of 16 numbers takes as long as seven products
  return n * (near + near * (1.0f - d * near));
#else
  return n / d;
#endif
}

// x times the normal distribution's cumulative function, the exact form, within 2.1e-7 of x: the error function of x / sqrt(2) is a ratio of
// polynomials up to 5.55, and 1 beyond.
inline vec gelu(vec x) {
  constexpr float above[] = {7.978845452e-01f, 6.745198444e-02f, 9.332071784e-03f, 3.340701478e-04f, 1.258682817e-05f, 4.512163726e-08f};
  constexpr float below[] = {1.000000000e+00f, 2.512048855e-01f, 2.856429500e-02f, 1.874670416e-03f, 7.282519331e-05f, 1.187625853e-06f};
  const vec half = 0.5f * x, z = x * x;
  const vec near = half + half * (x * quotient(polynomial(z, above), polynomial(z, below)));
  return absolute(x) > splat(5.55f) ? (x > 0.0f ? x : vec{}) : near;
}

}  // namespace
