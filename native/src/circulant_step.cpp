// Fully connected layers over few samples whose weights are block-circulant: products of frequencies.
//
// A block of b x b weights that depend on (row - column) mod b only is a convolution around a circle, so its product with b inputs
// is a product of their frequencies: the inputs are transformed once, multiplied and summed for each block of outputs, and each of
// those is taken back once. Kernels: circulant_kernels.inl.

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "activation.hpp"
#include "samples.hpp"
#include "step.hpp"

namespace openwork {
namespace {

// cos and sin of 2 pi k / kMaxCirculant.
const std::vector<float>& turns() {
  static const std::vector<float> found = [] {
    std::vector<float> pairs;
    for (int k = 0; k < kMaxCirculant; k++) {
      const double angle = 2 * std::numbers::pi * k / kMaxCirculant;
      pairs.push_back(static_cast<float>(std::cos(angle)));
      pairs.push_back(static_cast<float>(std::sin(angle)));
    }
    return pairs;
  }();
  return found;
}

class CirculantStep final : public Step {
 public:
  CirculantStep(const Fields& f, const Limits& limits)
      : block_(f.small("block")),
        features_(f.integer("features")),
        samples_(f),
        first_(f.floats("value")),
        bias_(f.floats("bias")),
        bounds_(f),
        act_(f) {
    require(block_ >= kMinCirculant && block_ <= kMaxCirculant && std::has_single_bit(static_cast<unsigned>(block_)), "the side of a circulant block must be a power of two, 4 to 128");
    samples_.require_reads(features_, limits);
    samples_.require_writes(outputs(), limits);
    require(static_cast<int64_t>(first_.size()) == (outputs() + block_ - 1) / block_ * inputs() * block_, "circulant blocks need one value for each output of a block");
    stride_ = (inputs() + kUnit - 1) / kUnit * kUnit;
    padded_ = features_ % block_ ? inputs() * block_ : 0;
    each_ = samples_.at_once * block_ * stride_ + (padded_ + kUnit - 1) / kUnit * kUnit;
    require(each_ < kMaxSize / limits.threads && panels() * kUnit * inputs() * block_ < kMaxSize, "a circulant step needs too much memory");
    parts_ = std::clamp<int64_t>(f.small("row_chunks"), 1, panels());
    threads_ = limits.threads;
    transform();
  }

  int chunks() const override { return static_cast<int>(parts_); }
  int64_t scratch() const override { return each_ * threads_; }

  // Every chunk transforms the inputs for itself: that costs less than to wait for each other.
  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    float* const own = context.scratch + each_ * context.thread;
    const int64_t begin = panels() * chunk / parts_, end = panels() * (chunk + 1) / parts_;
    for (int64_t n = 0; n < samples_.batch; n += samples_.at_once) {
      const int64_t last = std::min(n + samples_.at_once, samples_.batch);
      for (int64_t s = n; s < last; s++) {
        Circulant c = sample(context, s, own + (s - n) * block_ * stride_);
        if (padded_) {
          float* const whole = own + samples_.at_once * block_ * stride_;
          std::fill(std::copy_n(c.x, features_, whole), whole + padded_, 0.0f);
          c.x = whole;
        }
        kernels.circulant_values(c);
      }
      for (int64_t p = begin; p < end; p++)  // whose weights stay in a cache for all samples
        for (int64_t s = n; s < last; s++) {
          const Circulant c = sample(context, s, own + (s - n) * block_ * stride_);
          if (!kernels.circulant(c, p)) sum_plainly(c, p);
          const int64_t at = p * kUnit * block_;
          if (act_) act_.apply(kernels, c.y + at, c.y + at, std::min<int64_t>(kUnit * block_, outputs() - at), 0);
        }
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return "circulant_f32_" + std::to_string(block_) + "x" + std::to_string(samples_.at_once) + "_" + kernels.name + act_.suffix();
  }

 private:
  // Frequencies of every block, by their definition: [panel][frequency][block of inputs][two parts][block of outputs].
  void transform() {
    const int64_t panel = int64_t{kUnit} * inputs() * block_;
    room_.assign(static_cast<size_t>(panels() * panel + kUnit), 0.0f);
    const size_t misaligned = reinterpret_cast<uintptr_t>(room_.data()) / sizeof(float) % kUnit;
    spectrum_ = room_.data() + (misaligned ? kUnit - misaligned : 0);
    for (int64_t i = 0; i < (outputs() + block_ - 1) / block_; i++)
      for (int64_t j = 0; j < inputs(); j++)
        for (int k = 0; k < block_ / 2; k++) {
          double part[2] = {};
          for (int r = 0; r < block_; r++) {
            const double w = first_[static_cast<size_t>((i * inputs() + j) * block_ + r)];
            const size_t turn = static_cast<size_t>(int64_t{r} * k % block_ * (kMaxCirculant / block_));
            part[0] += w * (k ? double{turns()[2 * turn]} : 1.0);
            part[1] += w * (k ? -double{turns()[2 * turn + 1]} : r % 2 ? -1.0 : 1.0);  // frequency 0 is real, its place is that of block / 2
          }
          for (int h = 0; h < 2; h++) spectrum_[i / kUnit * panel + ((k * inputs() + j) * 2 + h) * kUnit + i % kUnit] = static_cast<float>(part[h] / block_);
        }
    for (int o = 0; o < kUnit * block_; o++) {
      int row = 0;
      for (int bit = 1; bit < block_; bit *= 2) row = 2 * row + (o & bit ? 1 : 0);  // in bit-reversed order
      place_.push_back(row * kUnit + o / block_);
    }
  }

  Circulant sample(const Context& context, int64_t n, float* values) const {
    return {block_, inputs(), outputs(), context.arena + samples_.x + n * samples_.x_stride, context.arena + samples_.y + n * samples_.y_stride, values, stride_,
            spectrum_, first_.data(), bias_.data(), place_.data(), turns().data(), features_, bounds_.lo, bounds_.hi};
  }

  // What is not finite spoils the frequencies of all outputs. Then they are summed as they are defined.
  void sum_plainly(const Circulant& c, int64_t panel) const {
    const int64_t begin = panel * kUnit * block_, end = std::min<int64_t>(begin + kUnit * block_, outputs());
    for (int64_t o = begin; o < end; o++) c.y[o] = circulant_output(c, o);
  }

  int64_t outputs() const { return static_cast<int64_t>(bias_.size()); }
  int64_t inputs() const { return (features_ + block_ - 1) / block_; }
  int64_t panels() const { return (outputs() + kUnit * block_ - 1) / (kUnit * block_); }

  int block_, threads_ = 1;
  int64_t features_;
  Samples samples_;
  Held<float> first_, bias_;
  Bounds bounds_;
  Activation act_;
  std::vector<float> room_;
  float* spectrum_ = nullptr;  // in room_, at the begin of a cache line
  std::vector<int32_t> place_;
  int64_t stride_ = 0, padded_ = 0, each_ = 0, parts_ = 1;
};

const StepKind kind("circulant", make<CirculantStep>);

}  // namespace
}  // namespace openwork
