// Depthwise convolution: a kernel and an input plane for each output plane.

#include "activation.hpp"
#include "depthwise_geometry.hpp"

namespace openwork {
namespace {

class FloatDepthwise final : public DepthwiseStep {
 public:
  FloatDepthwise(const Fields& f, const Limits& limits)
      : DepthwiseStep(f, limits), weight_(f.floats("weight")), bias_(f.floats("bias")), bounds_(f), act_(f) {
    require(weight_.size() == planes() * taps(), "a depthwise convolution needs a kernel for each plane");
    require(bias_.size() == planes(), "a depthwise convolution needs a bias for each plane");
  }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    // Few planes at a time where an activation follows: it finds them in the first cache.
    for_images(context, chunk, static_cast<bool>(act_), [&](const DepthwiseImages& images, size_t c) {
      kernels.depthwise({images, weight_.data() + c * taps(), bias_.data() + c, bounds_.lo, bounds_.hi});
      if (act_) for_rows(images, [&](float* row) { act_.apply(kernels, row, row, images.out_w, c); });
    });
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("depthwise_f32_") + kernels.name + act_.suffix(); }

 private:
  Held<float> weight_, bias_;
  Bounds bounds_;
  Activation act_;
};

const StepKind kind("depthwise", make<FloatDepthwise>);

}  // namespace
}  // namespace openwork
