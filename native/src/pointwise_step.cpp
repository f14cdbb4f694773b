// Activations that no layer before them could take along, and batch norm of features.

#include "activation.hpp"
#include "positions.hpp"

namespace openwork {
namespace {

// y[c, q] = f(x[c, q]) for every pixel q of planes on one grid; rows of features are one plane whose images are a row high.
// With arrays "weight" and "bias", one each for a row's positions: y[n, i] = f(weight[i] * x[n, i] + bias[i]).
class PointwiseStep final : public PositionStep {
 public:
  PointwiseStep(const Fields& f, const Limits& limits)
      : PositionStep(f, limits, f.positions("y").size()), act_(f), x_(f.positions("x")), y_(f.positions("y")), stride_(f.numbers("grid")[1]) {
    require(x_.size() == y_.size(), "a pointwise step needs as many output as input planes");
    check_planes(x_);
    check_planes(y_);
    if (f.has_array("weight")) {
      weight_ = f.floats("weight");
      bias_ = f.floats("bias");
      require(stride_ % kUnit == 0 && f.numbers("grid")[3] == 1, "weights of a pointwise step are for rows");
      require(weight_.size() == static_cast<size_t>(stride_) && bias_.size() == weight_.size(), "a pointwise step needs one weight and bias for each position of a row");
    }
    require(static_cast<bool>(act_) || !weight_.empty(), "a pointwise step needs an activation");
  }

  std::string kernel(const Kernels& kernels) const override {
    return (weight_.empty() ? "pointwise_f32" : "scale_f32") + act_.suffix() + "_" + kernels.name;
  }

 protected:
  void run_stretch(const Kernels& kernels, float* arena, size_t plane, const Stretch& stretch) const override {
    const auto [inside, q, n] = stretch;
    const float* x = arena + x_[plane] + q;
    float* y = arena + y_[plane] + q;
    for (int64_t i = 0; !weight_.empty() && i < n;) {
      const int64_t at = (q + i) % stride_, count = std::min(n - i, stride_ - at);
      kernels.scale(x + i, weight_.data() + at, bias_.data() + at, y + i, count);
      i += count;
    }
    if (act_) act_.apply(kernels, weight_.empty() ? x : y, y, n, plane, inside, q);
  }

 private:
  Activation act_;
  std::vector<int32_t> x_, y_;
  int64_t stride_;
  Held<float> weight_, bias_;
};

const StepKind kind("pointwise", make<PointwiseStep>);

}  // namespace
}  // namespace openwork
