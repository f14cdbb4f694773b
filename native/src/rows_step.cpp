// Fully connected layers over few samples: lanes run over outputs.

#include <algorithm>
#include <bit>

#include "levels.hpp"
#include "samples.hpp"
#include "step.hpp"
#include "tap_lists.hpp"

namespace openwork {
namespace {

class RowsStep final : public Step {
 public:
  RowsStep(const Fields& f, const Limits& limits)
      : width_(f.small("width")),
        samples_(f),
        value_(f.aligned_floats("value")),
        bias_(f.floats("bias")),
        bounds_(f),
        act_(f) {
    require(width_ >= 1 && width_ <= 64 && std::has_single_bit(static_cast<unsigned>(width_)), "outputs in a panel must be a power of two, 1 to 64");
    TapLists lists(f, width_, static_cast<int64_t>(bias_.size()));
    start_ = std::move(lists.start);
    first_ = std::move(lists.first);
    index_ = std::move(lists.index);
    listed_ = width_ < kUnit || !f.boolean("dense", false);
    const int64_t panels = static_cast<int64_t>(start_.size()) - 1;
    require(value_.size() == static_cast<size_t>(start_.back()) * static_cast<size_t>(width_), "columns need one value for each output of the panel");
    require(static_cast<int64_t>(bias_.size()) == panels * width_, "panels need one bias for each output");
    levels_ = Levels(f, start_, bias_.size());
    samples_.require_writes(panels * width_, limits);
    require_inside(index_, 1, limits.arena - samples_.x - (samples_.batch - 1) * samples_.x_stride, "a column reads outside the arena");
    // Where panels are narrow the list is a large part of what is read.
    if (width_ < kUnit && std::ranges::all_of(index_, [](int32_t i) { return i <= UINT16_MAX; })) {
      short_.assign(index_.begin(), index_.end());
      index_ = {};
    }
    const int64_t units = (panels + unit() - 1) / unit();
    cut_ = even_cuts(start_, static_cast<int>(std::clamp<int64_t>(f.small("row_chunks"), 1, units)), unit());
  }

  int levels() const override { return levels_.count(); }
  int chunks() const override { return static_cast<int>(cut_.size()) - 1; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    Rows rows = {context.arena + samples_.x, context.arena + samples_.y, samples_.x_stride, samples_.y_stride, start_.data(), start_.data() + 1, first_.data(),
                 listed_ ? index_.data() : nullptr, short_.empty() ? nullptr : short_.data(), value_.data(), bias_.data(), bounds_.lo, bounds_.hi, nullptr};
    if (context.level && levels_.count() > 1) {
      rows.end = levels_.end(context.level);
      rows.bias = levels_.bias(context.level);
      rows.scale = levels_.scale(context.level);
    }
    const auto& family = kernels.rows[std::countr_zero(static_cast<unsigned>(width_))];
    const int begin = cut_[static_cast<size_t>(chunk)], end = cut_[static_cast<size_t>(chunk) + 1];
    samples_.run_panels(kernels, act_, context.arena, width_, begin, end, unit(), [&](int64_t samples, int64_t n, int from, int to) { family[samples - 1](rows, n, from, to); });
  }

  std::string kernel(const Kernels& kernels) const override {
    return "rows_f32_" + std::to_string(width_) + "x" + std::to_string(samples_.at_once) + "_" +
           kernels.name + act_.suffix();
  }

 private:
  // Panels that fill a unit of outputs: what threads share no cache line of.
  int unit() const { return std::max(1, kUnit / width_); }

  int width_;
  Samples samples_;
  std::vector<int32_t> start_, first_, index_;
  std::vector<uint16_t> short_;
  Held<float> value_, bias_;
  Levels levels_;
  Bounds bounds_;
  Activation act_;
  bool listed_ = true;
  std::vector<int> cut_;
};

const StepKind kind("rows", make<RowsStep>);

}  // namespace
}  // namespace openwork
