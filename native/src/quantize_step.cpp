// Between planes of floats and planes of quads, where no layer does it on the way.

#include <algorithm>

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

// Quads of tokens, each position of which has a scale of its own, put into plane "token"; see QuantizeTokens. Of "quads" and floats "y" one may be missing.
class QuantizeTokensStep final : public Step {
 public:
  QuantizeTokensStep(const Fields& f, const Limits& limits)
      : x_(f.positions("x")), quads_(f.positions("quads")), y_(f.positions("y")), token_(f.small("token")), inside_(inside_bits(f.numbers("grid"), limits.arena)) {
    const ByteBounds bounds(f);
    most_ = bounds.hi;
    require(most_ >= 1 && bounds.lo == -most_, kSymmetric);
    require(!x_.empty() && !(quads_.empty() && y_.empty()), "tokens need inputs and outputs");
    require(quads_.empty() || quads_.size() == quads_of(x_.size()), "quantizing needs one plane of quads for every four channels");
    require(y_.empty() || y_.size() == x_.size(), "quantizing needs as many output as input planes");
    const int64_t reach = static_cast<int64_t>(inside_.size()) * kUnit;
    for (const std::vector<int32_t>* planes : {&x_, &quads_, &y_}) require_inside(*planes, reach, limits.arena, "a plane lies outside the arena");
    require(token_ >= 0 && token_ + reach <= limits.arena, "scales of tokens lie outside the arena");
    parts_ = position_parts(inside_.size(), limits);
  }

  int chunks() const override { return parts_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const QuantizeTokens tokens = {context.arena, context.arena, x_.data(), static_cast<int>(x_.size()), quads_.empty() ? nullptr : quads_.data(),
                                   y_.empty() ? nullptr : y_.data(), token_, most_, inside_.data()};
    const int64_t units = static_cast<int64_t>(inside_.size());
    kernels.quads.quantize_tokens(tokens, units * chunk / parts_, units * (chunk + 1) / parts_);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("quantize_tokens_") + kernels.name; }

 private:
  std::vector<int32_t> x_, quads_, y_;
  int token_;
  std::vector<uint16_t> inside_;
  float most_ = 0;
  int parts_ = 1;
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
const StepKind quantize_tokens_kind("quantize_tokens", make<QuantizeTokensStep>);
const StepKind dequantize_kind("dequantize", make<DequantizeStep>);

}  // namespace
}  // namespace openwork
