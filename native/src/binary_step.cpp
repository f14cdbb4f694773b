// Arithmetic between two values: gates, products, differences.

#include <string_view>

#include "activation.hpp"
#include "positions.hpp"

namespace openwork {
namespace {

// y[c, q] = act(f(a[c, q], b[c, q])) for every pixel q of planes on one grid. With field "b_stride" b is one number for each
// plane and sample: b[c, n] lies at b[c] + n * b_stride.
class BinaryStep final : public PositionStep {
 public:
  BinaryStep(const Fields& f, const Limits& limits)
      : PositionStep(f, limits, f.positions("y").size()),
        function_(function_named(f.string("function"))),
        act_(f),
        a_(f.positions("a")),
        b_(f.positions("b")),
        y_(f.positions("y")),
        batch_(f.numbers("grid")[0]),
        stride_(f.numbers("grid")[1]),
        b_stride_(f.integer("b_stride", -1)) {
    require(a_.size() == y_.size() && b_.size() == y_.size(), "a binary step needs as many planes of both operands as of its result");
    check_planes(a_);
    check_planes(y_);
    if (one_each()) {
      require_size(b_stride_, 0, "a stride is out of range");
      require_inside(b_, (batch_ - 1) * b_stride_ + 1, slab_floats(), "an operand lies outside the arena");
    } else {
      check_planes(b_);
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return std::string(kBinaries[function_]) + (one_each() ? "_each_f32" : "_f32") + act_.suffix() + "_" + kernels.name;
  }

 protected:
  void run_stretch(const Kernels& kernels, float* arena, size_t plane, const Stretch& stretch) const override {
    const auto [inside, q, n] = stretch;
    const float* a = arena + a_[plane];
    float* y = arena + y_[plane];
    const float* b = arena + b_[plane];
    const BinaryKernel kernel = kernels.binary[function_][one_each()];
    for (int64_t at = q; at < q + n;) {
      const int64_t sample = std::min(at / stride_, batch_ - 1);  // positions after the last image are padding
      const int64_t end = one_each() && sample < batch_ - 1 ? std::min(q + n, (sample + 1) * stride_) : q + n;
      kernel({a + at, one_each() ? b + sample * b_stride_ : b + at, y + at, end - at, inside, at});
      at = end;
    }
    if (act_) act_.apply(kernels, y + q, y + q, n, plane, inside, q);
  }

 private:
  bool one_each() const { return b_stride_ != -1; }

  static int function_named(const std::string& name) {
    for (int i = 0; i < kBinaryCount; i++)
      if (name == kBinaries[i]) return i;
    throw std::invalid_argument("unknown function of two values '" + name.substr(0, 40) + "'");
  }

  int function_;
  Activation act_;
  std::vector<int32_t> a_, b_, y_;
  int64_t batch_, stride_, b_stride_;
};

const StepKind kind("binary", make<BinaryStep>);

}  // namespace
}  // namespace openwork
