// Sums of two 8-bit values that no layer takes along.

#include "byte_bounds.hpp"
#include "positions.hpp"

namespace openwork {
namespace {

// y[c, q] = clamp(round(a[c, q] * scale_a + b[c, q] * scale_b), lo, hi) for every pixel q of planes of quads on one grid; y may be a or b.
class QuadSumStep final : public PositionStep {
 public:
  QuadSumStep(const Fields& f, const Limits& limits)
      : PositionStep(f, limits, f.positions("y").size()),
        a_(f.positions("a")),
        b_(f.positions("b")),
        y_(f.positions("y")),
        signed_a_(f.boolean("signed_a")),
        signed_b_(f.boolean("signed_b")),
        scale_a_(f.number("scale_a")),
        scale_b_(f.number("scale_b")),
        bounds_(f) {
    require(a_.size() == y_.size() && b_.size() == y_.size(), "a sum needs as many planes of both operands as of its result");
    require(std::isfinite(scale_a_) && std::isfinite(scale_b_), "a scale must be finite");
    check_planes(a_);
    check_planes(b_);
    check_planes(y_);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("sum_i8_") + kernels.name; }

 protected:
  void run_stretch(const Kernels& kernels, float* arena, size_t plane, const Stretch& stretch) const override {
    const auto [inside, q, n] = stretch;
    kernels.quads.sum[signed_a_][signed_b_]({arena + a_[plane] + q, arena + b_[plane] + q, arena + y_[plane] + q, n, inside, q, scale_a_, scale_b_, bounds_.lo, bounds_.hi});
  }

 private:
  std::vector<int32_t> a_, b_, y_;
  bool signed_a_, signed_b_;
  float scale_a_, scale_b_;
  ByteBounds bounds_;
};

const StepKind kind("quad_sum", make<QuadSumStep>);

}  // namespace
}  // namespace openwork
