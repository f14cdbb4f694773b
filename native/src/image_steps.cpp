// Steps that work plane by plane: pooling, copies between layouts, global mean.

#include "images.hpp"

namespace openwork {
namespace {

class PoolStep final : public PlaneStep {
 public:
  PoolStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("x").positions("planes").size(), limits.threads),
        max_(f.boolean("max")),
        batch_(f.integer("batch")),
        size_(f.numbers("size", 4)),
        kernel_(f.numbers("kernel", 2)),
        stride_(f.numbers("stride", 2)),
        padding_(f.numbers("padding", 2)),
        dilation_(f.numbers("dilation", 2)),
        x_(f.inner("x")),
        y_(f.inner("y")),
        scale_y_(f.floats("scale_y")),
        scale_x_(f.floats("scale_x")) {
    x_.check_head(limits);
    y_.check_target(limits);
    require(x_.offset.size() == y_.offset.size(), "pooling needs as many output as input planes");
    require_size(batch_, 1, "batch must be at least 1");
    for (const auto& sizes : {size_, kernel_, stride_, dilation_})
      for (int v : sizes) require(v >= 1 && v < (1 << 24), "pooling sizes must be positive");
    for (int v : padding_) require(v >= 0 && v < (1 << 24), "pooling padding must not be negative");
    for (size_t axis = 0; axis < 2; axis++) {
      const int64_t in = size_[axis], out = size_[2 + axis], k = kernel_[axis], d = dilation_[axis];
      // ox * sw - pw + kx * dw is computed in int
      require(out * stride_[axis] + k * d < kMaxSize, "pooling sizes are out of range");
      require((k - 1) * d < in + int64_t{2} * padding_[axis], "a pooling window is larger than the image");
    }
    if (!max_) require(scale_y_.size() == static_cast<size_t>(size_[2]) && scale_x_.size() == static_cast<size_t>(size_[3]), "average pooling needs one scale for each output row and column");
    for (size_t c = 0; c < x_.offset.size(); c++) {
      x_.check(limits, batch_, size_[0], size_[1], c);
      y_.check(limits, batch_, size_[2], size_[3], c);
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return std::string(max_ ? "max_pool_f32_" : "avg_pool_f32_") + kernels.name;
  }

 protected:
  void run_plane(const Kernels& kernels, const Context& context, size_t c) const override {
    for (int64_t n = 0; n < batch_; n++) {
      const Window window = {x_.plane(context, c, n), y_.plane(context, c, n), size_[0], size_[1], size_[2], size_[3],
                             x_.pitch, y_.pitch, kernel_[0], kernel_[1], stride_[0], stride_[1], padding_[0], padding_[1],
                             dilation_[0], dilation_[1], scale_y_.data(), scale_x_.data()};
      (max_ ? kernels.max_pool : kernels.sum_pool)(window);
    }
  }

 private:
  bool max_;
  int64_t batch_;
  std::vector<int> size_, kernel_, stride_, padding_, dilation_;
  View x_, y_;
  Held<float> scale_y_, scale_x_;
};

// y[c, n, i, j] = x[c, n, i * step_y, j * step_x] for i < rows[c], j < columns[c]
class CopyStep final : public PlaneStep {
 public:
  CopyStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("x").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        step_(f.numbers("step", 2)),
        x_(f.inner("x")),
        y_(f.inner("y")),
        rows_(f.positions("rows")),
        columns_(f.positions("columns")) {
    x_.check_head(limits);
    y_.check_target(limits);
    const size_t planes = x_.offset.size();
    require(y_.offset.size() == planes && rows_.size() == planes && columns_.size() == planes, "a copy needs as many output as input planes");
    require_size(batch_, 1, "batch must be at least 1");
    for (int step : step_) require(step >= 1 && step < (1 << 24), "a copy's steps must be positive");
    for (size_t c = 0; c < planes; c++) {
      require(rows_[c] >= 1 && columns_[c] >= 1, "a copy needs at least one row and column");
      const int64_t last_row = (rows_[c] - int64_t{1}) * step_[0], last_column = (columns_[c] - int64_t{1}) * step_[1];
      require(last_row < kMaxSize && last_column < kMaxSize, "a plane lies outside its buffer");
      const int64_t reach = (batch_ - 1) * x_.stride + last_row * x_.pitch + last_column + 1;
      require(x_.offset[c] >= 0 && x_.offset[c] + reach <= x_.size(limits), "a plane lies outside its buffer");
      y_.check(limits, batch_, rows_[c], columns_[c], c);
    }
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("copy_f32_") + kernels.name; }

 protected:
  void run_plane(const Kernels& kernels, const Context& context, size_t c) const override {
    for (int64_t n = 0; n < batch_; n++) {
      const float* x = x_.plane(context, c, n);
      float* y = y_.plane(context, c, n);
      for (int32_t i = 0; i < rows_[c]; i++) kernels.copy_row(x + int64_t{i} * step_[0] * x_.pitch, step_[1], y + i * y_.pitch, columns_[c]);
    }
  }

 private:
  int64_t batch_;
  std::vector<int> step_;
  View x_, y_;
  std::vector<int32_t> rows_, columns_;
};

// y[n, c] = sum of the plane's h rows times scale; the padding between the rows is zero and may be summed along
class MeanStep final : public PlaneStep {
 public:
  MeanStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("x").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        y_(f.integer("y")),
        y_stride_(f.integer("y_stride")),
        h_(f.small("h")),
        w_(f.small("w")),
        scale_(f.number("scale")),
        x_(f.inner("x")) {
    x_.check_head(limits);
    require_size(batch_, 1, "batch must be at least 1");
    require_size(y_, 0, "the output lies outside the arena");
    require_size(y_stride_, 0, "the output's stride is out of range");
    require(h_ >= 1 && w_ >= 1 && w_ <= x_.pitch, "a mean needs at least one row and column");
    require(y_ + (batch_ - 1) * y_stride_ + static_cast<int64_t>(x_.offset.size()) <= limits.arena, "the output lies outside the arena");
    for (size_t c = 0; c < x_.offset.size(); c++) x_.check(limits, batch_, h_, w_, c);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("mean_f32_") + kernels.name; }

 protected:
  void run_plane(const Kernels& kernels, const Context& context, size_t c) const override {
    for (int64_t n = 0; n < batch_; n++)
      context.arena[y_ + n * y_stride_ + static_cast<int64_t>(c)] =
          kernels.sum(x_.plane(context, c, n), (h_ - int64_t{1}) * x_.pitch + w_) * scale_;
  }

 private:
  int64_t batch_, y_, y_stride_;
  int h_, w_;
  float scale_;
  View x_;
};

const StepKind pool_kind("pool", make<PoolStep>), copy_kind("copy", make<CopyStep>), mean_kind("mean", make<MeanStep>);

}  // namespace
}  // namespace openwork
