// Depthwise convolution of quads: four kernels of 8-bit weights for each plane.

#include <numeric>

#include "byte_bounds.hpp"
#include "depthwise_geometry.hpp"
#include "quad_starts.hpp"

namespace openwork {
namespace {

class QuadDepthwiseStep final : public DepthwiseStep {
 public:
  QuadDepthwiseStep(const Fields& f, const Limits& limits)
      : DepthwiseStep(f, limits), signed_(f.boolean("signed")), scale_(f.floats("scale")), bias_(f.floats("bias")), bounds_(f) {
    const Held<int8_t> weight = f.signed_bytes("weight");
    require(weight.size() == kQuad * planes() * taps(), "a depthwise convolution of quads needs four kernels for each plane");
    require(scale_.size() == kQuad * planes() && bias_.size() == kQuad * planes(), "a depthwise convolution of quads needs four scales and biases for each plane");
    for (size_t c = 0; c < planes(); c++) pack(weight.data() + kQuad * c * taps());
  }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int32_t* const start = start_.of(kernels, signed_);
    for_images(context, chunk, false, [&](const DepthwiseImages& images, size_t c) {
      kernels.quads.depthwise[signed_]({images, words_.data() + c * words_.size() / planes(), start + kQuad * c, scale_.data() + kQuad * c,
                                        bias_.data() + kQuad * c, bounds_.lo, bounds_.hi});
    });
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("depthwise_i8_") + kernels.name; }

 private:
  // The four kernels of a plane, group of taps by group.
  void pack(const int8_t* weight) {
    const int kh = kernel_size()[0], kw = kernel_size()[1];
    for (int i = 0; i < kh; i++)
      for (int g = 0; g < tap_groups(kw); g++)
        for (int c = 0; c < kQuad; c++) {
          uint32_t word = 0;
          for (int t = 0; t < 4; t++)
            if (const int tap = 4 * g + t; tap < kw)
              word |= uint32_t{static_cast<uint8_t>(weight[(c * kh + i) * kw + tap])} << 8 * t;
          words_.push_back(static_cast<int32_t>(word));
        }
    for (size_t c = 0; c < kQuad; c++) start_.add(std::accumulate(weight + c * taps(), weight + (c + 1) * taps(), 0), signed_);
  }

  bool signed_;
  Held<float> scale_, bias_;
  ByteBounds bounds_;
  std::vector<int32_t> words_;
  QuadStarts start_;
};

const StepKind kind("quad_depthwise", make<QuadDepthwiseStep>);

}  // namespace
}  // namespace openwork
