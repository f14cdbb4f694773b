// Pooling and global means.

#include "pooling.hpp"

namespace openwork {
namespace {

class FloatPool final : public PoolStep {
 public:
  FloatPool(const Fields& f, const Limits& limits) : PoolStep(f, limits), max_(f.boolean("max")), scale_y_(f.floats("scale_y")), scale_x_(f.floats("scale_x")) {
    if (!max_) require(scale_y_.size() == static_cast<size_t>(size()[2]) && scale_x_.size() == static_cast<size_t>(size()[3]), "average pooling needs one scale for each output row and column");
  }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    for_windows(context, chunk, [&](Window window, int64_t first) {
      if (max_) return kernels.max_pool(window);
      window.scale_y = scale_y_.data() + first;
      window.scale_x = scale_x_.data();
      kernels.sum_pool(window);
    });
  }

  std::string kernel(const Kernels& kernels) const override {
    return std::string(max_ ? "max_pool_f32_" : "avg_pool_f32_") + kernels.name;
  }

 private:
  bool max_;
  Held<float> scale_y_, scale_x_;
};

class FloatMean final : public MeanStep {
 public:
  FloatMean(const Fields& f, const Limits& limits) : MeanStep(f, limits, static_cast<int64_t>(f.inner("x").positions("planes").size())) {}

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    for_outputs(context, chunk, [&](size_t c, int64_t sample, float* y) {
      float total = 0;
      for_stretches(context, c, sample, [&](const float* x, int64_t n) { total += kernels.sum(x, n); });
      y[c] = total * scale();
    });
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("mean_f32_") + kernels.name; }
};

const StepKind pool_kind("pool", make<FloatPool>), mean_kind("mean", make<FloatMean>);

}  // namespace
}  // namespace openwork
