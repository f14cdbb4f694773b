// Activations over a stretch of positions, for epilogues and pointwise steps; names and parameters: activations.hpp.

#include "activations.hpp"
#include "pixels.hpp"
#include "vec_math.hpp"

namespace {

inline vec act_clamp(vec x, const float* p) { return clamp(x, splat(p[0]), splat(p[1])); }
inline vec act_leaky_relu(vec x, const float* p) { return x > 0.0f ? x : x * p[0]; }
inline vec act_elu(vec x, const float* p) { return x > 0.0f ? x * p[1] : exp_minus_1(x * p[2]) * (p[0] * p[1]); }
inline vec act_sigmoid(vec x, const float*) { return sigmoid(x); }
inline vec act_tanh(vec x, const float*) { return tanh(x); }
inline vec act_silu(vec x, const float*) { return x * sigmoid(x); }
inline vec act_erf(vec x, const float*) { return erf(x); }
inline vec act_gelu(vec x, const float*) { return gelu(x); }
inline vec act_gelu_tanh(vec x, const float*) {
  const vec u = x * x * x * 0.044715f + x;
  return x * sigmoid(u * 1.59576912f);  // (1 + tanh(v)) / 2 is sigmoid(2 v)
}
inline vec act_hardswish(vec x, const float*) { return x * (clamp(x + 3.0f, splat(0.0f), splat(6.0f)) * (1.0f / 6.0f)); }
inline vec act_mish(vec x, const float*) {
  const vec e = exp(x > 30.0f ? splat(30.0f) : x), n = e * (e + 2.0f);
  return x * (n / (n + 2.0f));  // tanh(log(1 + e)) without logarithm
}
inline vec act_softplus(vec x, const float* p) {
  const vec b = x * p[0];
  const vec soft = ((b > 0.0f ? b : vec{}) + log_of_1_plus(exp(-absolute(b)))) * (1.0f / p[0]);
  return b > p[1] ? x : soft;
}
inline vec act_exp(vec x, const float*) { return exp(x); }
inline vec act_abs(vec x, const float*) { return absolute(x); }
inline vec act_square(vec x, const float*) { return x * x; }
inline vec act_sqrt(vec x, const float*) { return square_root(x); }
inline vec act_rsqrt(vec x, const float*) { return 1.0f / square_root(x); }
inline vec act_reciprocal(vec x, const float*) { return 1.0f / x; }

// Applies `f` to vectors of a stretch; the last may be short, and nothing beyond it is read or written.
template <vec (*F)(vec, const float*)>
void activate(const openwork::Activate& a) {
  int64_t i = 0;
  for (; i + kLanes <= a.n; i += kLanes) {
    const vec y = F(load(a.x + i), a.parameters);
    store(a.y + i, a.inside ? keep(y, pixels(a.inside, a.q + i)) : y);
  }
  if (i == a.n) return;
  const size_t rest = sizeof(float) * static_cast<size_t>(a.n - i);
  vec x = {};
  __builtin_memcpy(&x, a.x + i, rest);
  x = F(x, a.parameters);
  if (a.inside) x = keep(x, pixels(a.inside, a.q + i, a.n - i));
  __builtin_memcpy(a.y + i, &x, rest);
}

void scale(const float* x, const float* weight, const float* bias, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(weight + i) * load(x + i) + load(bias + i));
  for (; i < n; i++) y[i] = weight[i] * x[i] + bias[i];
}

void fill_activations(openwork::ActivateKernel* table) {
  openwork::ActivateKernel* next = table;
#define OW_FILL(name, parameters) *next++ = activate<act_##name>;
  OW_ACTIVATIONS(OW_FILL)
#undef OW_FILL
}

}  // namespace
