// Depthwise convolution: a kernel and an input plane for each output plane.

#include "activation.hpp"
#include "images.hpp"

namespace openwork {
namespace {

// Rows are read wherever they lie: images that are cut into slabs need no halo, and none needs padding.
class DepthwiseStep final : public PlaneStep {
 public:
  DepthwiseStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("y").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        size_(f.numbers("size", 4)),
        kernel_(f.numbers("kernel", 2)),
        stride_(f.small("stride")),
        before_(f.numbers("before", 2)),
        x_(f.inner("x"), limits),
        y_(f.inner("y"), limits),
        weight_(f.floats("weight")),
        bias_(f.floats("bias")),
        bounds_(f),
        act_(f) {
    x_.check_head(limits);
    y_.check_target(limits);
    const size_t planes = y_.offset.size();
    require(x_.offset.size() == planes, "a depthwise convolution needs as many input as output planes");
    require_size(batch_, 1, "batch must be at least 1");
    for (int v : size_) require(v >= 1 && v < (1 << 20), "sizes of a depthwise convolution are out of range");
    for (int k : kernel_) require(k >= 1 && k <= kMaxDepthwise, "a depthwise kernel is too large");
    for (int b : before_) require(b >= 0 && b < (1 << 24), "padding must not be negative");
    require(stride_ == 1 || stride_ == 2, "a depthwise convolution's stride must be 1 or 2");
    require(weight_.size() == planes * static_cast<size_t>(kernel_[0] * kernel_[1]), "a depthwise convolution needs a kernel for each plane");
    require(bias_.size() == planes, "a depthwise convolution needs a bias for each plane");
    require(batch_ == 1 || !(x_.slabs.cut() || y_.slabs.cut()), "slabs are for a batch of one image");
    x_.slabs.require_holds(size_[0]);
    y_.slabs.require_holds(size_[2]);
    for (size_t c = 0; c < planes; c++) {
      x_.check_rows(limits, batch_, 0, x_.slabs.most_rows(size_[0]), size_[1], c);
      y_.check_rows(limits, batch_, 0, y_.slabs.most_rows(size_[2]), size_[3], c);
    }
    for (int s = 0; s < y_.slabs.count(); s++) rows_.push_back(rows_of(s));
  }

  int chunks() const override { return plane_chunks() * y_.slabs.count(); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int s = chunk / plane_chunks();
    const int rows = y_.slabs.height(s, size_[2]);
    if (rows == 0) return;
    const auto [first, end] = planes_of(chunk % plane_chunks());
    // Few planes at a time where an activation follows: it finds them in the first cache.
    const size_t each = act_ ? 1 : end - first;
    for (int64_t n = 0; n < batch_; n++)
      for (size_t c = first; c < end; c += each) {
        float* const y = y_.plane(context, c, n) - y_.offset[c] + y_.slabs.at(s);
        kernels.depthwise({x_.plane(context, c, n) - x_.offset[c], x_.offset.data() + c, rows_[static_cast<size_t>(s)].data(), y, y_.offset.data() + c, y_.pitch,
                           static_cast<int>(each), size_[1], before_[1], rows, size_[3], kernel_[0], kernel_[1], stride_,
                           weight_.data() + c * static_cast<size_t>(kernel_[0] * kernel_[1]), bias_.data() + c, bounds_.lo, bounds_.hi});
        for (int r = 0; act_ && r < rows; r++) {
          float* const row = y + y_.offset[c] + r * y_.pitch;
          act_.apply(kernels, row, row, size_[3], c);
        }
      }
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("depthwise_f32_") + kernels.name + act_.suffix(); }

 private:
  // Where every row lies that a slab of the output reads, from a plane's begin.
  std::vector<int64_t> rows_of(int slab) const {
    const int height = y_.slabs.height(slab, size_[2]);
    std::vector<int64_t> found;
    for (int64_t i = 0; height > 0 && i < (height - int64_t{1}) * stride_ + kernel_[0]; i++) {
      const int64_t row = y_.slabs.begin(slab) * stride_ - before_[0] + i;
      const int of = row >= 0 && row < size_[0] ? x_.slabs.of(row) : -1;
      found.push_back(of < 0 ? Depthwise::kNoRow : x_.slabs.at(of) + (row - x_.slabs.begin(of)) * x_.pitch);
    }
    return found;
  }

  int64_t batch_;
  std::vector<int> size_, kernel_;
  int stride_;
  std::vector<int> before_;
  View x_, y_;
  Held<float> weight_, bias_;
  Bounds bounds_;
  Activation act_;
  std::vector<std::vector<int64_t>> rows_;  // of each slab of the output
};

const StepKind kind("depthwise", make<DepthwiseStep>);

}  // namespace
}  // namespace openwork
