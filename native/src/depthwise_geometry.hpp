// The images of a depthwise convolution, of floats or of quads, and the chunks in which they are worked on.
#pragma once

#include "images.hpp"

namespace openwork {

// Rows are read wherever they lie: images that are cut into slabs need no halo, and none needs padding.
class DepthwiseStep : public PlaneStep {
 public:
  DepthwiseStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("y").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        size_(f.numbers("size", 4)),
        kernel_(f.numbers("kernel", 2)),
        stride_(f.small("stride")),
        before_(f.numbers("before", 2)),
        x_(f.inner("x"), limits),
        y_(f.inner("y"), limits) {
    x_.check_head(limits);
    y_.check_target(limits);
    const size_t planes = y_.offset.size();
    require(x_.offset.size() == planes, "a depthwise convolution needs as many input as output planes");
    require_size(batch_, 1, "batch must be at least 1");
    for (int v : size_) require(v >= 1 && v < (1 << 20), "sizes of a depthwise convolution are out of range");
    for (int k : kernel_) require(k >= 1 && k <= kMaxDepthwise, "a depthwise kernel is too large");
    for (int b : before_) require(b >= 0 && b < (1 << 24), "padding must not be negative");
    require(stride_ == 1 || stride_ == 2, "a depthwise convolution's stride must be 1 or 2");
    require(batch_ == 1 || !(x_.slabs.cut() || y_.slabs.cut()), "slabs are for a batch of one image");
    x_.slabs.require_holds(size_[0]);
    y_.slabs.require_holds(size_[2]);
    for (size_t c = 0; c < planes; c++) {
      x_.check_rows(limits, batch_, 0, x_.slabs.most_rows(size_[0]), size_[1], c);
      y_.check_rows(limits, batch_, 0, y_.slabs.most_rows(size_[2]), size_[3], c);
    }
    for (int s = 0; s < y_.slabs.count(); s++) rows_.push_back(rows_of(s));
  }

  int chunks() const final { return plane_chunks() * y_.slabs.count(); }

 protected:
  size_t planes() const { return y_.offset.size(); }
  size_t taps() const { return static_cast<size_t>(kernel_[0] * kernel_[1]); }
  const std::vector<int>& kernel_size() const { return kernel_; }
  int stride() const { return stride_; }

  // Calls work(images, first plane) for the planes of a chunk: all at once, or with `one` each alone.
  template <class Work>
  void for_images(const Context& context, int chunk, bool one, const Work& work) const {
    const int s = chunk / plane_chunks();
    const int rows = y_.slabs.height(s, size_[2]);
    if (rows == 0) return;
    const auto [first, end] = planes_of(chunk % plane_chunks());
    const size_t each = one ? 1 : end - first;
    for (int64_t n = 0; n < batch_; n++)
      for (size_t c = first; c < end; c += each) {
        float* const y = y_.plane(context, c, n) - y_.offset[c] + y_.slabs.at(s);
        work(DepthwiseImages{x_.plane(context, c, n) - x_.offset[c], x_.offset.data() + c, rows_[static_cast<size_t>(s)].data(), y, y_.offset.data() + c, y_.pitch,
                             static_cast<int>(each), size_[1], before_[1], rows, size_[3], kernel_[0], kernel_[1], stride_},
             c);
      }
  }

  // Calls work(row) for the outputs' rows of one plane.
  template <class Work>
  static void for_rows(const DepthwiseImages& images, const Work& work) {
    for (int r = 0; r < images.out_h; r++) work(images.y + images.y_plane[0] + r * images.y_pitch);
  }

 private:
  // Where every row lies that a slab of the output reads, from a plane's begin.
  std::vector<int64_t> rows_of(int slab) const {
    const int height = y_.slabs.height(slab, size_[2]);
    std::vector<int64_t> found;
    for (int64_t i = 0; height > 0 && i < (height - int64_t{1}) * stride_ + kernel_[0]; i++) {
      const int64_t row = y_.slabs.begin(slab) * stride_ - before_[0] + i;
      const int of = row >= 0 && row < size_[0] ? x_.slabs.of(row) : -1;
      found.push_back(of < 0 ? DepthwiseImages::kNoRow : x_.slabs.at(of) + (row - x_.slabs.begin(of)) * x_.pitch);
    }
    return found;
  }

  int64_t batch_;
  std::vector<int> size_, kernel_;
  int stride_;
  std::vector<int> before_;
  View x_, y_;
  std::vector<std::vector<int64_t>> rows_;  // of each slab of the output
};

}  // namespace openwork
