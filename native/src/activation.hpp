// The activation that a step applies to values while they are hot in the cache.
#pragma once

#include <string>

#include "step.hpp"

namespace openwork {

// "act" is [name, parameters...], or missing: none. An array "slope" gives leaky_relu one slope a row (PReLU).
class Activation {
 public:
  explicit Activation(const Fields& f);

  explicit operator bool() const { return kernel_ >= 0; }

  // y[i] = f(x[i]) for i < n; zero where `inside` has no pixel at q + i. `row` chooses the slope; x may be y.
  void apply(const Kernels& kernels, const float* x, float* y, int64_t n, size_t row, const uint16_t* inside = nullptr, int64_t q = 0) const {
    const float* parameters = slopes_.empty() ? parameters_ : &slopes_[row < slopes_.size() ? row : 0];
    kernels.activate[kernel_]({x, y, n, inside, q, parameters});
  }

  // "_silu", or nothing: what it adds to a kernel's name.
  std::string suffix() const;

 private:
  int kernel_ = -1;
  float parameters_[kMaxActParameters] = {};
  Held<float> slopes_;
};

}  // namespace openwork
