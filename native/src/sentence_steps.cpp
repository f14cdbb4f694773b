// What sentence encoders end with: a weighted mean over tokens, and vectors of length one.

#include <algorithm>
#include <cmath>

#include "step.hpp"

namespace openwork {
namespace {

// y[n, c] = sum of flags[n, t] x[c, n, t] over tokens t / max(sum of flags, least); flags are int32 in an external buffer.
class WordMeanStep final : public Step {
 public:
  WordMeanStep(const Fields& f, const Limits& limits)
      : batch_(f.integer("batch")),
        length_(f.integer("length")),
        stride_(f.integer("stride")),
        y_(f.integer("y")),
        y_stride_(f.integer("y_stride")),
        flags_(f.small("flags")),
        least_(f.number("least", -__builtin_inff())),
        x_(f.positions("x")) {
    require_size(batch_, 1, "batch must be at least 1");
    require_size(length_, 1, "a mean needs at least one token");
    require_size(stride_, 0, "a stride is out of range");
    require_size(y_, 0, "the output lies outside the arena");
    require_size(y_stride_, 0, "the output's stride is out of range");
    require(!x_.empty(), "a mean needs at least one plane");
    require_inside(x_, (batch_ - 1) * stride_ + length_, limits.arena, "an input plane lies outside the arena");
    require(y_ + (batch_ - 1) * y_stride_ + static_cast<int64_t>(x_.size()) <= limits.arena, "the output lies outside the arena");
    require(flags_ >= 0 && flags_ < static_cast<int>(limits.externals.size()), "the flags name an unknown buffer");
    require(batch_ * length_ <= limits.externals[static_cast<size_t>(flags_)], "the flags lie outside their buffer");
  }

  int chunks() const override { return static_cast<int>(batch_); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int32_t* flags = reinterpret_cast<const int32_t*>(context.externals[flags_]) + chunk * length_;
    float* y = context.arena + y_ + chunk * y_stride_;
    std::fill_n(y, x_.size(), 0.0f);
    double count = 0;
    float weight[kTokens];
    for (int64_t begin = 0; begin < length_; begin += kTokens) {
      const int64_t tokens = std::min(kTokens, length_ - begin);
      for (int64_t t = 0; t < tokens; t++) {
        weight[t] = static_cast<float>(flags[begin + t]);
        count += weight[t];
      }
      for (size_t c = 0; c < x_.size(); c++) y[c] += kernels.dot(context.arena + x_[c] + chunk * stride_ + begin, weight, tokens);
    }
    const float below = std::max(static_cast<float>(count), least_);
    for (size_t c = 0; c < x_.size(); c++) y[c] /= below;
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("word_mean_f32_") + kernels.name; }

 private:
  static constexpr int64_t kTokens = 512;
  int64_t batch_, length_, stride_, y_, y_stride_;
  int flags_;
  float least_;
  std::vector<int32_t> x_;
};

// y[n] = x[n] / max(length of x[n], least)
class UnitStep final : public Step {
 public:
  UnitStep(const Fields& f, const Limits& limits)
      : batch_(f.integer("batch")),
        features_(f.integer("features")),
        x_(f.integer("x")),
        x_stride_(f.integer("x_stride")),
        y_(f.integer("y")),
        y_stride_(f.integer("y_stride")),
        least_(f.number("least")) {
    require_size(batch_, 1, "batch must be at least 1");
    require_size(features_, 1, "a vector needs at least one feature");
    require_size(x_, 0, "the input lies outside the arena");
    require_size(y_, 0, "the output lies outside the arena");
    require_size(x_stride_, 0, "the input's stride is out of range");
    require_size(y_stride_, 0, "the output's stride is out of range");
    require(x_ + (batch_ - 1) * x_stride_ + features_ <= limits.arena, "the input lies outside the arena");
    require(y_ + (batch_ - 1) * y_stride_ + features_ <= limits.arena, "the output lies outside the arena");
  }

  int chunks() const override { return static_cast<int>(batch_); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const float* x = context.arena + x_ + chunk * x_stride_;
    float* y = context.arena + y_ + chunk * y_stride_;
    const float length = std::sqrt(kernels.dot(x, x, features_)), below = length < least_ ? least_ : length;
    for (int64_t i = 0; i < features_; i++) y[i] = x[i] / below;
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("unit_f32_") + kernels.name; }

 private:
  int64_t batch_, features_, x_, x_stride_, y_, y_stride_;
  float least_;
};

const StepKind word_mean_kind("word_mean", make<WordMeanStep>), unit_kind("unit", make<UnitStep>);

}  // namespace
}  // namespace openwork
