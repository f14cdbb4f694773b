// Fully connected layers over few samples whose outputs have nearly as many weights as each other in every stretch of inputs: sixteen
// outputs at a time take their inputs from a window in registers, so nothing is gathered from memory. Kernels: balanced_kernels.inl.
//
// The packer fills slots that an output has no weight for with zeros.

#include <algorithm>
#include <cstring>

#include "activation.hpp"
#include "samples.hpp"
#include "step.hpp"
#include "tap_lists.hpp"

namespace openwork {
namespace {

class BalancedStep final : public Step {
 public:
  BalancedStep(const Fields& f, const Limits& limits)
      : window_(f.small("window")),
        features_(f.integer("features")),
        samples_(f),
        value_(f.aligned_floats("value")),
        bias_(f.floats("bias")),
        bounds_(f),
        act_(f) {
    require(std::ranges::find(kWindows, window_) != std::end(kWindows), "inputs in a window must be 4, 8 or 32");
    samples_.require_reads(features_, limits);
    samples_.require_writes(outputs(), limits);
    read_slots(f);
    if (f.has_array("place")) read_places(f.integers("place"));
    x_room_ = (features_ / half() * half() + window_ + kUnit) / kUnit * kUnit;  // a window begins at the last feature, at most
    each_ = samples_.at_once * (x_room_ + (place_.empty() ? 0 : panels() * kUnit));
    require(each_ < kMaxSize / limits.threads, "a balanced step needs too much memory");
    threads_ = limits.threads;
    cut_ = even_cuts(start_, static_cast<int>(std::clamp<int64_t>(f.small("row_chunks"), 1, panels())), 1);
  }

  int chunks() const override { return static_cast<int>(cut_.size()) - 1; }
  int64_t scratch() const override { return each_ * threads_; }

  // Every chunk lays the inputs out for itself: that costs less than to wait for each other.
  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    float* const x = context.scratch + each_ * context.thread;
    const int begin = cut_[static_cast<size_t>(chunk)], end = cut_[static_cast<size_t>(chunk) + 1];
    const int64_t first = int64_t{begin} * kUnit, count = std::min<int64_t>(int64_t{end} * kUnit, outputs()) - first;
    const auto& family = kernels.balanced[std::ranges::find(kWindows, window_) - std::begin(kWindows)];
    for (int64_t n = 0; n < samples_.batch; n += samples_.at_once) {
      const int64_t samples = std::min<int64_t>(samples_.at_once, samples_.batch - n);
      for (int64_t s = 0; s < samples; s++) {
        float* const own = x + s * x_room_;
        std::fill(std::copy_n(context.arena + samples_.x + (n + s) * samples_.x_stride, features_, own), own + x_room_, 0.0f);
      }
      float* const out = context.arena + samples_.y + n * samples_.y_stride;
      float* const y = place_.empty() ? out : x + samples_.at_once * x_room_;
      const int64_t stride = place_.empty() ? samples_.y_stride : panels() * kUnit;
      family[samples - 1]({x, y, x_room_, stride, start_.data(), line_.data(), begin_.data(), positions(), value_.data(), bias_.data(), outputs(), bounds_.lo, bounds_.hi}, begin, end);
      for (int64_t s = 0; s < samples; s++) {
        float* const found = y + s * stride + first;
        if (act_) act_.apply(kernels, found, found, count, 0);
        if (!place_.empty())
          for (int64_t o = 0; o < count; o++) out[s * samples_.y_stride + place_[static_cast<size_t>(first + o)]] = found[o];
      }
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return "balanced_f32_" + std::to_string(window_) + "x" + std::to_string(samples_.at_once) + "_" + kernels.name + act_.suffix();
  }

 private:
  struct alignas(64) Line {
    int32_t word[kUnit];
  };

  void read_slots(const Fields& f) {
    start_ = f.integers("start");
    const std::vector<int32_t> begin = f.integers("begin"), position = f.integers("index");
    require_starts(start_, begin.size());
    require(static_cast<int64_t>(start_.size()) - 1 == panels(), "every sixteen outputs need a list of slots");
    require(value_.size() == begin.size() * kUnit, "slots need one value for each of sixteen outputs");
    require_inside(begin, 1, std::min<int64_t>((features_ + half() - 1) / half(), UINT16_MAX + 1), "a window begins outside the input");
    begin_.assign(begin.begin(), begin.end());
    int64_t lines = 0;
    for (int64_t p = 0; p < panels(); p++) {
      line_.push_back(static_cast<int32_t>(lines));
      const int32_t slots = start_[static_cast<size_t>(p) + 1] - start_[static_cast<size_t>(p)];
      lines += (slots + window_slots(window_) - 1) / window_slots(window_);
    }
    require(static_cast<int64_t>(position.size()) == lines * kUnit, "slots need one position for each of sixteen outputs");
    position_.resize(static_cast<size_t>(lines));
    if (lines) std::memcpy(position_.data(), position.data(), position.size() * sizeof(int32_t));
  }

  // Outputs may be packed in another order, in which those side by side have as many weights as each other.
  void read_places(std::vector<int32_t> place) {
    require(static_cast<int64_t>(place.size()) == outputs(), "places need one number for each output");
    std::vector<bool> taken(place.size(), false);
    for (int32_t o : place) {
      require(o >= 0 && o < outputs() && !taken[static_cast<size_t>(o)], "places must name every output once");
      taken[static_cast<size_t>(o)] = true;
    }
    place_ = std::move(place);
  }

  const int32_t* positions() const { return reinterpret_cast<const int32_t*>(position_.data()); }
  int half() const { return window_ / 2; }
  int64_t outputs() const { return static_cast<int64_t>(bias_.size()); }
  int64_t panels() const { return (outputs() + kUnit - 1) / kUnit; }

  int window_, threads_ = 1;
  int64_t features_;
  Samples samples_;
  std::vector<int32_t> start_, line_, place_;
  std::vector<uint16_t> begin_;
  std::vector<Line> position_;
  Held<float> value_, bias_;
  Bounds bounds_;
  Activation act_;
  int64_t x_room_ = 0, each_ = 0;
  std::vector<int> cut_;
};

const StepKind kind("balanced", make<BalancedStep>);

}  // namespace
}  // namespace openwork
