// Fully connected layers over few samples in 8 bits: lanes run over outputs, or over columns and outputs. See QuadRows.

#include <algorithm>
#include <bit>
#include <cmath>

#include "byte_bounds.hpp"
#include "quad_starts.hpp"
#include "samples.hpp"
#include "tap_lists.hpp"

namespace openwork {
namespace {

static_assert(kMaxQuadSamples == kMaxSamples);

// y[n, o] = act(clamp(scale[o] * sum of value[o, k] * quantized x[n, k] + bias[o])), x and y being floats. With "by_token" the largest
// magnitude of a sample says what it is multiplied by, as in QuantizeTokens, instead of "inverse".
class QuadRowsStep final : public Step {
 public:
  QuadRowsStep(const Fields& f, const Limits& limits)
      : width_(f.small("width", kUnit)),
        samples_(f),
        features_(f.integer("features")),
        value_(f.aligned_quads("value")),
        scale_(f.floats("scale")),
        bias_(f.floats("bias")),
        by_token_(f.boolean("by_token", false)),
        inverse_(by_token_ ? 1 : f.number("inverse")),
        x_bounds_(f, "x_lo", "x_hi"),
        bounds_(f),
        act_(f) {
    require(width_ >= 1 && width_ <= kUnit && std::has_single_bit(static_cast<unsigned>(width_)), "outputs in a panel must be a power of two, 1 to 16");
    TapLists lists(f, width_, static_cast<int64_t>(bias_.size()));
    start_ = std::move(lists.start);
    first_ = std::move(lists.first);
    index_ = std::move(lists.index);
    listed_ = width_ < kUnit || !f.boolean("dense", false);
    const int64_t panels = static_cast<int64_t>(start_.size()) - 1;
    require(value_.size() == static_cast<size_t>(start_.back()) * static_cast<size_t>(width_), "columns need a quad of values for each output of the panel");
    require(static_cast<int64_t>(bias_.size()) == panels * width_ && scale_.size() == bias_.size(), "panels need one scale and one bias for each output");
    require(std::isfinite(inverse_), "a scale must be finite");
    require(x_bounds_.lo <= 0 && x_bounds_.hi >= 0, "zero must lie within the bounds of the input");
    require(!by_token_ || (x_bounds_.hi >= 1 && x_bounds_.lo == -x_bounds_.hi), kSymmetric);
    samples_.require_reads(features_, limits);
    samples_.require_writes(panels * width_, limits);
    require_inside(index_, 1, (features_ + kQuad - 1) / kQuad, "a column lies outside the input");
    require(samples_.batch < kMaxSize / limits.threads / (words() + kUnit), "rows are too large");
    scratch_ = room() * limits.threads;
    for (int64_t p = 0; p < panels; p++)
      for (int64_t o = 0; o < width_; o++) sums_.add(sum_of_weights(p, o), is_signed());
    // Where panels are narrow the list is a large part of what is read.
    if (width_ < kUnit && std::ranges::all_of(index_, [](int32_t i) { return i <= UINT16_MAX; })) {
      short_.assign(index_.begin(), index_.end());
      index_ = {};
    }
    const int64_t units = (panels + unit() - 1) / unit();
    cut_ = even_cuts(start_, static_cast<int>(std::clamp<int64_t>(f.small("row_chunks"), 1, units)), unit());
  }

  int chunks() const override { return static_cast<int>(cut_.size()) - 1; }
  int64_t scratch() const override { return scratch_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    // Every thread quantizes the input for itself: that takes less time than a meeting of threads.
    float* const scratch = context.scratch + context.thread * room();
    int32_t* const x = reinterpret_cast<int32_t*>(scratch);
    float* const token = scratch + samples_.batch * words();
    for (int64_t n = 0; n < samples_.batch; n++) {
      const float* const row = context.arena + samples_.x + n * samples_.x_stride;
      float inverse = inverse_;
      token[n] = 1;
      if (by_token_) {
        token[n] = token_scale(kernels.quads.largest(row, features_), x_bounds_.hi);
        inverse = 1 / token[n];
      }
      kernels.quads.quantize_row[is_signed()]({row, x + n * words(), features_, inverse, x_bounds_.lo, x_bounds_.hi});
    }
    const QuadRows rows = {x, context.arena + samples_.y, words(), samples_.y_stride, start_.data(), first_.data(), listed_ ? index_.data() : nullptr, short_.empty() ? nullptr : short_.data(),
                           value_.data(), sums_.of(kernels, is_signed()), scale_.data(), bias_.data(), token, bounds_.lo, bounds_.hi, is_signed()};
    const int begin = cut_[static_cast<size_t>(chunk)], end = cut_[static_cast<size_t>(chunk) + 1];
    const auto& family = kernels.quads.rows[std::countr_zero(static_cast<unsigned>(width_))];
    samples_.run_panels(kernels, act_, context.arena, width_, begin, end, unit(), [&](int64_t samples, int64_t n, int from, int to) { family[samples - 1](rows, n, from, to); });
  }

  std::string kernel(const Kernels& kernels) const override {
    return "rows_i8_" + std::to_string(width_) + "x" + std::to_string(samples_.at_once) + "_" + kernels.name + act_.suffix();
  }

 private:
  static constexpr int64_t kLine = kUnit * kQuad;  // bytes

  bool is_signed() const { return x_bounds_.lo < 0; }
  int64_t words() const { return (features_ + kLine - 1) / kLine * kUnit; }  // of a quantized sample, whole cache lines
  int64_t room() const { return samples_.batch * words() + (samples_.batch + kUnit - 1) / kUnit * kUnit; }  // of a thread: samples, then their scales

  // Panels that fill a unit of outputs: what threads share no cache line of.
  int unit() const { return std::max(1, kUnit / width_); }

  int64_t sum_of_weights(int64_t panel, int64_t output) const {
    int64_t sum = 0;
    for (int64_t k = start_[static_cast<size_t>(panel)]; k < start_[static_cast<size_t>(panel) + 1]; k++) {
      const uint32_t quad = static_cast<uint32_t>(value_[static_cast<size_t>(k * width_ + output)]);
      for (int c = 0; c < kQuad; c++) sum += static_cast<int8_t>(quad >> 8 * c & 255);
    }
    return sum;
  }

  int width_;
  Samples samples_;
  int64_t features_;
  std::vector<int32_t> start_, first_, index_;
  std::vector<uint16_t> short_;
  QuadStarts sums_;
  Held<int32_t> value_;
  Held<float> scale_, bias_;
  bool by_token_;
  float inverse_;
  ByteBounds x_bounds_;
  Bounds bounds_;
  Activation act_;
  bool listed_ = true;
  int64_t scratch_ = 0;
  std::vector<int> cut_;
};

const StepKind kind("quad_rows", make<QuadRowsStep>);

}  // namespace
}  // namespace openwork
