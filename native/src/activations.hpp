// The activations that an epilogue or a pointwise step may apply: the one list of their names and parameters.
#pragma once

#include <cstddef>
#include <cstdint>

namespace openwork {

// X(name, parameters). Formulas, in double: kernels_reference.cpp. Vectorised: activations.inl.
#define OW_ACTIVATIONS(X)                                                                                    \
  X(clamp, 2)        /* lo, hi */                                                                            \
  X(leaky_relu, 1)   /* slope */                                                                             \
  X(elu, 3)          /* alpha, scale, input scale: x > 0 ? scale x : scale alpha (exp(input scale x) - 1) */ \
  X(sigmoid, 0)                                                                                              \
  X(tanh, 0)                                                                                                 \
  X(silu, 0)                                                                                                 \
  X(erf, 0)                                                                                                  \
  X(gelu, 0)                                                                                                 \
  X(gelu_tanh, 0)                                                                                            \
  X(hardswish, 0)                                                                                            \
  X(mish, 0)                                                                                                 \
  X(softplus, 2)     /* beta, threshold */                                                                   \
  X(exp, 0)                                                                                                  \
  X(abs, 0)                                                                                                  \
  X(square, 0)                                                                                               \
  X(sqrt, 0)                                                                                                 \
  X(rsqrt, 0)                                                                                                \
  X(reciprocal, 0)

struct ActivationKind {
  const char* name;
  size_t parameters;
};

constexpr ActivationKind kActivations[] = {
#define OW_KIND(name, parameters) {#name, parameters},
    OW_ACTIVATIONS(OW_KIND)
#undef OW_KIND
};

constexpr int kActs = sizeof(kActivations) / sizeof(kActivations[0]);
constexpr int kMaxActParameters = 3;

// y[i] = f(x[i]) for i < n, and zero where position q + i is no pixel (see Taps::inside; null: all are). x may be y.
struct Activate {
  const float* x;
  float* y;
  int64_t n;
  const uint16_t* inside;
  int64_t q;
  const float* parameters;
};

using ActivateKernel = void (*)(const Activate&);

}  // namespace openwork
