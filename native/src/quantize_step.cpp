// Between planes of floats and planes of quads, where no layer does it on the way.

#include "byte_bounds.hpp"
#include "positions.hpp"

namespace openwork {
namespace {

size_t quads_of(size_t channels) { return (channels + kQuad - 1) / kQuad; }

// y[c / 4, q] = quads of clamp(round(x[c, q] * inverse), lo, hi) for every pixel q of planes on one grid.
class QuantizeStep final : public PositionStep {
 public:
  QuantizeStep(const Fields& f, const Limits& limits)
      : PositionStep(f, limits, f.positions("y").size()), x_(f.positions("x")), y_(f.positions("y")), inverse_(f.number("inverse")), bounds_(f) {
    require(y_.size() == quads_of(x_.size()), "quantizing needs one plane of quads for every four channels");
    require(std::isfinite(inverse_), "a scale must be finite");
    check_planes(x_);
    check_planes(y_);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("quantize_") + kernels.name; }

 protected:
  void run_stretch(const Kernels& kernels, float* arena, size_t plane, const Stretch& stretch) const override {
    Quantize p = {{}, arena + y_[plane], stretch.inside, stretch.q, stretch.n, inverse_, bounds_.lo, bounds_.hi};
    for (size_t c = 0; c < kQuad && plane * kQuad + c < x_.size(); c++) p.x[c] = arena + x_[plane * kQuad + c];
    kernels.quads.quantize(p);
  }

 private:
  std::vector<int32_t> x_, y_;
  float inverse_;
  ByteBounds bounds_;
};

// y[c, q] = scale * channel c of quads x[c / 4, q], signed or not.
class DequantizeStep final : public PositionStep {
 public:
  DequantizeStep(const Fields& f, const Limits& limits)
      : PositionStep(f, limits, f.positions("x").size()), x_(f.positions("x")), y_(f.positions("y")), scale_(f.number("scale")), signed_(f.boolean("signed")) {
    require(x_.size() == quads_of(y_.size()), "dequantizing needs one plane of quads for every four channels");
    require(std::isfinite(scale_), "a scale must be finite");
    check_planes(x_);
    check_planes(y_);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("dequantize_") + kernels.name; }

 protected:
  void run_stretch(const Kernels& kernels, float* arena, size_t plane, const Stretch& stretch) const override {
    Dequantize p = {arena + x_[plane], {}, stretch.inside, stretch.q, stretch.n, scale_};
    for (size_t c = 0; c < kQuad && plane * kQuad + c < y_.size(); c++) p.y[c] = arena + y_[plane * kQuad + c];
    kernels.quads.dequantize[signed_](p);
  }

 private:
  std::vector<int32_t> x_, y_;
  float scale_;
  bool signed_;
};

const StepKind quantize_kind("quantize", make<QuantizeStep>);
const StepKind dequantize_kind("dequantize", make<DequantizeStep>);

}  // namespace
}  // namespace openwork
