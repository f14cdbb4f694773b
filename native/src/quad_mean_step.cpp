// Global means of quads, to floats.

#include "pooling.hpp"

namespace openwork {
namespace {

class QuadMean final : public MeanStep {
 public:
  QuadMean(const Fields& f, const Limits& limits) : MeanStep(f, limits, f.integer("channels")), channels_(f.integer("channels")), signed_(f.boolean("signed")) {
    require(channels_ >= 1 && (channels_ + kQuad - 1) / kQuad == static_cast<int64_t>(planes()), "a mean needs a plane of quads for every four channels");
    require(positions() <= kMostPositions, "a mean has too many positions");
  }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    for_outputs(context, chunk, [&](size_t plane, int64_t sample, float* y) {
      int32_t totals[kQuad] = {};
      for_stretches(context, plane, sample, [&](const float* x, int64_t n) { kernels.quads.total[signed_](x, n, totals); });
      const int64_t first = static_cast<int64_t>(plane) * kQuad;
      for (int64_t c = first; c < std::min(first + kQuad, channels_); c++) y[c] = static_cast<float>(totals[c - first]) * scale();
    });
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("mean_i8_") + kernels.name; }

 private:
  static constexpr int64_t kMostPositions = int64_t{1} << 23;  // whose bytes add up to less than 2^31

  int64_t channels_;
  bool signed_;
};

const StepKind kind("quad_mean", make<QuadMean>);

}  // namespace
}  // namespace openwork
