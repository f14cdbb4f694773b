// Fully connected layers over few samples: lanes run over outputs.

#include <algorithm>
#include <bit>

#include "step.hpp"

namespace openwork {
namespace {

class RowsStep final : public Step {
 public:
  RowsStep(const RowsSpec& s, const Limits& limits)
      : spec_(s), start_(copied(s.start)), index_(copied(s.index)), value_(copied(s.value)), bias_(copied(s.bias)) {
    require(s.width == 16 || s.width == 32 || s.width == 64, "outputs in a panel must be 16, 32 or 64");
    require(s.samples >= 1 && s.samples <= kMaxSamples, "samples in a block must be 1 to 6");
    require_size(s.batch, 1, "batch must be at least 1");
    require_size(s.x, 0, "the input lies outside the arena");
    require_size(s.y, 0, "the output lies outside the arena");
    require_size(s.x_stride, 0, "the input's stride is out of range");
    require_size(s.y_stride, 0, "the output's stride is out of range");
    require_starts(s.start, s.index.size());
    const int64_t panels = static_cast<int64_t>(s.start.size()) - 1;
    require(s.value.size() == s.index.size() * static_cast<size_t>(s.width), "columns need one value for each output of the panel");
    require(static_cast<int64_t>(s.bias.size()) == panels * s.width, "panels need one bias for each output");
    require(s.y + (s.batch - 1) * s.y_stride + panels * s.width <= limits.arena, "the output lies outside the arena");
    require_inside(s.index, 1, limits.arena - s.x - (s.batch - 1) * s.x_stride, "a column reads outside the arena");
    parts_ = static_cast<int>(std::clamp<int64_t>(s.row_chunks, 1, panels));
    spec_.start = {};  // the spans are the caller's; the vectors above are ours
    spec_.index = {};
    spec_.value = {};
    spec_.bias = {};
  }

  int chunks() const override { return parts_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const Rows rows = {context.arena + spec_.x, context.arena + spec_.y, spec_.x_stride, spec_.y_stride,
                       start_.data(), index_.data(), value_.data(), bias_.data(), spec_.lo, spec_.hi};
    const auto& family = kernels.rows[std::countr_zero(static_cast<unsigned>(spec_.width / 16))];
    const int64_t panels = static_cast<int64_t>(start_.size()) - 1;
    const int begin = static_cast<int>(panels * chunk / parts_), end = static_cast<int>(panels * (chunk + 1) / parts_);
    for (int64_t n = 0; n < spec_.batch;) {
      const int64_t samples = std::min<int64_t>(spec_.samples, spec_.batch - n);
      family[samples - 1](rows, n, begin, end);
      n += samples;
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return "rows_f32_" + std::to_string(spec_.width) + "x" + std::to_string(std::min<int64_t>(spec_.samples, spec_.batch)) + "_" +
           kernels.name;
  }

 private:
  RowsSpec spec_;
  std::vector<int32_t> start_, index_;
  std::vector<float> value_, bias_;
  int parts_ = 1;
};

}  // namespace

std::unique_ptr<Step> make_step(const RowsSpec& spec, const Limits& limits) {
  return std::make_unique<RowsStep>(spec, limits);
}

}  // namespace openwork
