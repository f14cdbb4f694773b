// Several planes become one larger plane: pixel shuffle, upsampling by repetition, the phases of a transposed convolution.

#include "images.hpp"

namespace openwork {
namespace {

// y[c, n, i * fy + a, j * fx + b] = x[(c * fy + a) * fx + b, n, i, j] for every pixel of y: `size` is its height and width.
class InterleaveStep final : public PlaneStep {
 public:
  InterleaveStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("y").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        factor_(f.numbers("factor", 2)),
        size_(f.numbers("size", 2)),
        x_(f.inner("x"), limits),
        y_(f.inner("y"), limits) {
    x_.check_head(limits);
    y_.check_target(limits);
    require_whole(x_);
    require_whole(y_);
    require_size(batch_, 1, "batch must be at least 1");
    for (int factor : factor_) require(factor >= 1 && factor <= kMaxFactor, "factors must be 1 to 64");
    for (int size : size_) require(size >= 1 && size < (1 << 24), "an image needs at least one row and column");
    const size_t phases = static_cast<size_t>(factor_[0]) * static_cast<size_t>(factor_[1]);
    require(x_.offset.size() == y_.offset.size() * phases, "interleaving needs one input plane for each phase of each output plane");
    for (size_t c = 0; c < y_.offset.size(); c++) y_.check(limits, batch_, size_[0], size_[1], c);
    for (size_t p = 0; p < x_.offset.size(); p++) {
      const int a = static_cast<int>(p % phases) / factor_[1], b = static_cast<int>(p % phases) % factor_[1];
      const int64_t rows = (int64_t{size_[0]} - a + factor_[0] - 1) / factor_[0], columns = (int64_t{size_[1]} - b + factor_[1] - 1) / factor_[1];
      if (rows > 0 && columns > 0) x_.check(limits, batch_, rows, columns, p);
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return "interleave_f32_" + std::to_string(factor_[0]) + "x" + std::to_string(factor_[1]) + "_" + kernels.name;
  }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    for_planes(chunk, [&](size_t c) { run_plane(kernels, context, c); });
  }

 private:
  void run_plane(const Kernels& kernels, const Context& context, size_t c) const {
    const float* rows[kMaxFactor];
    for (int64_t n = 0; n < batch_; n++)
      for (int y = 0; y < size_[0]; y++) {
        const int a = y % factor_[0], i = y / factor_[0];
        for (int b = 0; b < factor_[1]; b++)
          rows[b] = x_.plane(context, (c * static_cast<size_t>(factor_[0]) + static_cast<size_t>(a)) * static_cast<size_t>(factor_[1]) + static_cast<size_t>(b), n) + i * x_.pitch;
        kernels.interleave(rows, factor_[1], y_.plane(context, c, n) + y * y_.pitch, size_[1]);
      }
  }

  int64_t batch_;
  std::vector<int> factor_, size_;
  View x_, y_;
};

const StepKind kind("interleave", make<InterleaveStep>);

}  // namespace
}  // namespace openwork
