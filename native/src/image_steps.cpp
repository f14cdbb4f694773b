// Steps that work plane by plane: pooling, copies between layouts, global mean.

#include <algorithm>

#include "step.hpp"

namespace openwork {
namespace {

struct OwnedView {
  explicit OwnedView(const View& v) : buffer(v.buffer), pitch(v.pitch), stride(v.stride), offset(copied(v.offset)) {}

  float* plane(const Context& context, size_t channel, int64_t sample) const {
    float* base = buffer < 0 ? context.arena : context.externals[buffer];
    return base + offset[channel] + sample * stride;
  }

  // Rows rows of columns floats of every plane lie inside the buffer.
  void check(const Limits& limits, int64_t batch, int64_t rows, int64_t columns, size_t channel) const {
    const int64_t reach = (batch - 1) * stride + (rows - 1) * pitch + columns;
    require(offset[channel] >= 0 && offset[channel] + reach <= size(limits), "a plane lies outside its buffer");
  }

  void check_head(const Limits& limits) const {
    require(buffer >= -1 && buffer < static_cast<int>(limits.externals.size()), "a view names an unknown buffer");
    require_size(pitch, 0, "a view's pitch is out of range");
    require_size(stride, 0, "a view's stride is out of range");
    require(!offset.empty(), "a view needs at least one plane");
  }

  int64_t size(const Limits& limits) const { return buffer < 0 ? limits.arena : limits.externals[static_cast<size_t>(buffer)]; }

  int buffer;
  int64_t pitch, stride;
  std::vector<int32_t> offset;
};

// Planes are cut evenly; a few chunks for each thread let a delayed thread be helped out.
int plane_chunks(size_t planes, int threads) {
  return threads == 1 ? 1 : static_cast<int>(std::min<size_t>(planes, static_cast<size_t>(threads) * 2));
}

class PlaneStep : public Step {
 public:
  PlaneStep(size_t planes, int threads) : planes_(planes), chunks_(plane_chunks(planes, threads)) {}
  int chunks() const final { return chunks_; }
  void run(const Kernels& kernels, const Context& context, int chunk) const final {
    const size_t parts = static_cast<size_t>(chunks_), part = static_cast<size_t>(chunk);
    for (size_t c = planes_ * part / parts; c < planes_ * (part + 1) / parts; c++) run_plane(kernels, context, c);
  }

 protected:
  virtual void run_plane(const Kernels& kernels, const Context& context, size_t channel) const = 0;

 private:
  size_t planes_;
  int chunks_;
};

class PoolStep final : public PlaneStep {
 public:
  PoolStep(const PoolSpec& s, const Limits& limits)
      : PlaneStep(s.x.offset.size(), limits.threads), s_(s), x_(s.x), y_(s.y), scale_y_(copied(s.scale_y)), scale_x_(copied(s.scale_x)) {
    x_.check_head(limits);
    y_.check_head(limits);
    require(x_.offset.size() == y_.offset.size(), "pooling needs as many output as input planes");
    require_size(s.batch, 1, "batch must be at least 1");
    for (int v : {s.h, s.w, s.out_h, s.out_w, s.kh, s.kw, s.sh, s.sw, s.dh, s.dw}) require(v >= 1 && v < (1 << 24), "pooling sizes must be positive");
    require(s.ph >= 0 && s.ph < (1 << 24) && s.pw >= 0 && s.pw < (1 << 24), "pooling padding must not be negative");
    // ox * sw - pw + kx * dw is computed in int
    require(int64_t{s.out_h} * s.sh + int64_t{s.kh} * s.dh < kMaxSize && int64_t{s.out_w} * s.sw + int64_t{s.kw} * s.dw < kMaxSize, "pooling sizes are out of range");
    require((s.kh - int64_t{1}) * s.dh < s.h + int64_t{2} * s.ph && (s.kw - int64_t{1}) * s.dw < s.w + int64_t{2} * s.pw, "a pooling window is larger than the image");
    if (!s.max) require(s.scale_y.size() == static_cast<size_t>(s.out_h) && s.scale_x.size() == static_cast<size_t>(s.out_w), "average pooling needs one scale for each output row and column");
    for (size_t c = 0; c < x_.offset.size(); c++) {
      x_.check(limits, s.batch, s.h, s.w, c);
      y_.check(limits, s.batch, s.out_h, s.out_w, c);
    }
    s_.x.offset = s_.y.offset = {};
    s_.scale_x = s_.scale_y = {};
  }

  std::string kernel(const Kernels& kernels) const override {
    return std::string(s_.max ? "max_pool_f32_" : "avg_pool_f32_") + kernels.name;
  }

 protected:
  void run_plane(const Kernels& kernels, const Context& context, size_t c) const override {
    for (int64_t n = 0; n < s_.batch; n++) {
      const Window window = {x_.plane(context, c, n), y_.plane(context, c, n), s_.h, s_.w, s_.out_h, s_.out_w,
                             x_.pitch, y_.pitch, s_.kh, s_.kw, s_.sh, s_.sw, s_.ph, s_.pw, s_.dh, s_.dw,
                             scale_y_.data(), scale_x_.data()};
      (s_.max ? kernels.max_pool : kernels.sum_pool)(window);
    }
  }

 private:
  PoolSpec s_;
  OwnedView x_, y_;
  std::vector<float> scale_y_, scale_x_;
};

class CopyStep final : public PlaneStep {
 public:
  CopyStep(const CopySpec& s, const Limits& limits)
      : PlaneStep(s.x.offset.size(), limits.threads), batch_(s.batch), step_y_(s.step_y), step_x_(s.step_x), x_(s.x), y_(s.y), rows_(copied(s.rows)), columns_(copied(s.columns)) {
    x_.check_head(limits);
    y_.check_head(limits);
    const size_t planes = x_.offset.size();
    require(y_.offset.size() == planes && rows_.size() == planes && columns_.size() == planes, "a copy needs as many output as input planes");
    require_size(batch_, 1, "batch must be at least 1");
    require(step_y_ >= 1 && step_y_ < (1 << 16) && step_x_ >= 1 && step_x_ < (1 << 16), "a copy's steps must be positive");
    for (size_t c = 0; c < planes; c++) {
      require(rows_[c] >= 1 && columns_[c] >= 1, "a copy needs at least one row and column");
      const int64_t last_row = (rows_[c] - int64_t{1}) * step_y_, last_column = (columns_[c] - int64_t{1}) * step_x_;
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
      for (int32_t i = 0; i < rows_[c]; i++) kernels.copy_row(x + int64_t{i} * step_y_ * x_.pitch, step_x_, y + i * y_.pitch, columns_[c]);
    }
  }

 private:
  int64_t batch_;
  int step_y_, step_x_;
  OwnedView x_, y_;
  std::vector<int32_t> rows_, columns_;
};

class MeanStep final : public PlaneStep {
 public:
  MeanStep(const MeanSpec& s, const Limits& limits)
      : PlaneStep(s.x.offset.size(), limits.threads), s_(s), x_(s.x) {
    x_.check_head(limits);
    require_size(s.batch, 1, "batch must be at least 1");
    require_size(s.y, 0, "the output lies outside the arena");
    require_size(s.y_stride, 0, "the output's stride is out of range");
    require(s.h >= 1 && s.w >= 1 && s.w <= x_.pitch, "a mean needs at least one row and column");
    require(s.y + (s.batch - 1) * s.y_stride + static_cast<int64_t>(x_.offset.size()) <= limits.arena, "the output lies outside the arena");
    for (size_t c = 0; c < x_.offset.size(); c++) x_.check(limits, s.batch, s.h, s.w, c);
    s_.x.offset = {};
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("mean_f32_") + kernels.name; }

 protected:
  void run_plane(const Kernels& kernels, const Context& context, size_t c) const override {
    for (int64_t n = 0; n < s_.batch; n++)
      context.arena[s_.y + n * s_.y_stride + static_cast<int64_t>(c)] =
          kernels.sum(x_.plane(context, c, n), (s_.h - int64_t{1}) * x_.pitch + s_.w) * s_.scale;
  }

 private:
  MeanSpec s_;
  OwnedView x_;
};

}  // namespace

std::unique_ptr<Step> make_step(const PoolSpec& spec, const Limits& limits) { return std::make_unique<PoolStep>(spec, limits); }
std::unique_ptr<Step> make_step(const CopySpec& spec, const Limits& limits) { return std::make_unique<CopyStep>(spec, limits); }
std::unique_ptr<Step> make_step(const MeanSpec& spec, const Limits& limits) { return std::make_unique<MeanStep>(spec, limits); }

}  // namespace openwork
