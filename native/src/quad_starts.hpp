// What sums of integer products begin with.
#pragma once

#include "step.hpp"

namespace openwork {

// Zero for each output; or, with kernels that flip the sign bits of x, which moves unsigned values down and signed ones up by 128, what
// makes up for that. It holds in the padding, too.
class QuadStarts {
 public:
  // The weights of the next output add up to `weights`. x is signed or not.
  void add(int64_t weights, bool is_signed) {
    zeros_.push_back(0);
    flipped_.push_back(static_cast<int32_t>((is_signed ? -128 : 128) * weights));  // wraps around, as sums do
  }

  const int32_t* of(const Kernels& kernels, bool is_signed) const { return (kernels.quads.flips[is_signed] ? flipped_ : zeros_).data(); }

 private:
  std::vector<int32_t> zeros_, flipped_;
};

}  // namespace openwork
