// Pooling and global means: what steps on floats and on quads have in common.
#pragma once

#include "images.hpp"

namespace openwork {

class PoolStep : public PlaneStep {
 public:
  PoolStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("x").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        size_(f.numbers("size", 4)),
        kernel_(f.numbers("kernel", 2)),
        stride_(f.numbers("stride", 2)),
        padding_(f.numbers("padding", 2)),
        dilation_(f.numbers("dilation", 2)),
        x_(f.inner("x"), limits),
        y_(f.inner("y"), limits) {
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
    require(!x_.slabs.cut() || (y_.slabs.cut() && x_.slabs.count() == y_.slabs.count()), "pooling reads slabs into as many slabs");
    require(!y_.slabs.cut() || batch_ == 1, "slabs are for a batch of one image");
    x_.slabs.require_holds(size_[0]);
    y_.slabs.require_holds(size_[2]);
    for (int s = 0; s < y_.slabs.count(); s++) parts_.push_back(part(s));
    for (size_t c = 0; c < x_.offset.size(); c++) {
      if (!x_.slabs.cut()) x_.check(limits, batch_, size_[0], size_[1], c);
      for (size_t s = 0; s < parts_.size() && x_.slabs.cut(); s++)
        if (parts_[s].rows > 0) x_.check_rows(limits, batch_, parts_[s].begin - first_row(s), parts_[s].end - first_row(s), size_[1], c);
      y_.check(limits, batch_, y_.slabs.most_rows(size_[2]), size_[3], c);
    }
  }

  int chunks() const final { return plane_chunks() * y_.slabs.count(); }

 protected:
  const std::vector<int>& size() const { return size_; }

  // Calls work(window, first row of the output) for the planes of a chunk.
  template <class Work>
  void for_windows(const Context& context, int chunk, const Work& work) const {
    const auto s = static_cast<size_t>(chunk / plane_chunks());
    const Part& part = parts_[s];
    if (part.rows == 0) return;
    const int64_t first = y_.slabs.begin(static_cast<int>(s));
    const int above = static_cast<int>(part.begin - (first * stride_[0] - padding_[0]));
    for_planes(chunk % plane_chunks(), [&](size_t c) {
      for (int64_t n = 0; n < batch_; n++) {
        const float* x = x_.plane(context, c, n) + x_.slabs.at(x_.slabs.cut() ? static_cast<int>(s) : 0) + (part.begin - first_row(s)) * x_.pitch;
        float* y = y_.plane(context, c, n) + y_.slabs.at(static_cast<int>(s));
        work(Window{x, y, static_cast<int>(part.end - part.begin), size_[1], part.rows, size_[3], x_.pitch, y_.pitch, kernel_[0], kernel_[1],
                    stride_[0], stride_[1], above, padding_[1], dilation_[0], dilation_[1], nullptr, nullptr},
             first);
      }
    });
  }

 private:
  // A slab of the output: its rows, and the rows of the image [begin, end) that their windows reach.
  struct Part {
    int rows;
    int64_t begin, end;
  };

  Part part(int slab) const {
    const int rows = y_.slabs.height(slab, size_[2]);
    const int64_t first = y_.slabs.begin(slab) * stride_[0] - padding_[0];
    const int64_t last = first + (rows - int64_t{1}) * stride_[0] + (kernel_[0] - int64_t{1}) * dilation_[0];
    const int64_t begin = std::clamp<int64_t>(first, 0, size_[0]);
    return {rows, begin, std::clamp<int64_t>(last + 1, begin, size_[0])};
  }

  // The image's row that lies at row 0 of what a slab of the output reads.
  int64_t first_row(size_t slab) const { return x_.slabs.cut() ? x_.slabs.begin(static_cast<int>(slab)) : 0; }

  int64_t batch_;
  std::vector<int> size_, kernel_, stride_, padding_, dilation_;
  View x_, y_;
  std::vector<Part> parts_;
};

// y[n, c] = sum of the h rows of channel c times scale; the padding between the rows is zero and may be summed along.
class MeanStep : public PlaneStep {
 public:
  MeanStep(const Fields& f, const Limits& limits, int64_t channels)
      : PlaneStep(f.inner("x").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        y_(f.integer("y")),
        y_stride_(f.integer("y_stride")),
        h_(f.small("h")),
        w_(f.small("w")),
        scale_(f.number("scale")),
        x_(f.inner("x"), limits) {
    x_.check_head(limits);
    require_size(batch_, 1, "batch must be at least 1");
    require_size(y_, 0, "the output lies outside the arena");
    require_size(y_stride_, 0, "the output's stride is out of range");
    require(h_ >= 1 && w_ >= 1 && w_ <= x_.pitch, "a mean needs at least one row and column");
    require(y_ + (batch_ - 1) * y_stride_ + channels <= limits.arena, "the output lies outside the arena");
    require(batch_ == 1 || !x_.slabs.cut(), "slabs are for a batch of one image");
    x_.slabs.require_holds(h_);
    for (size_t c = 0; c < x_.offset.size(); c++) x_.check(limits, batch_, x_.slabs.most_rows(h_), w_, c);
  }

 protected:
  int64_t positions() const { return (h_ - 1) * x_.pitch + w_; }
  float scale() const { return scale_; }
  size_t planes() const { return x_.offset.size(); }

  // Calls work(plane, sample, the sample's outputs) for the planes of a chunk.
  template <class Work>
  void for_outputs(const Context& context, int chunk, const Work& work) const {
    for_planes(chunk, [&](size_t c) {
      for (int64_t n = 0; n < batch_; n++) work(c, n, context.arena + y_ + n * y_stride_);
    });
  }

  // Calls add(x, n) for the stretches of positions that a plane lies in.
  template <class Add>
  void for_stretches(const Context& context, size_t plane, int64_t sample, const Add& add) const {
    for (int s = 0; s < x_.slabs.count(); s++)
      if (const int64_t rows = x_.slabs.height(s, h_)) add(x_.plane(context, plane, sample) + x_.slabs.at(s), (rows - 1) * x_.pitch + w_);
  }

 private:
  int64_t batch_, y_, y_stride_;
  int h_, w_;
  float scale_;
  View x_;
};

}  // namespace openwork
