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
        x_(f.inner("x"), limits),
        y_(f.inner("y"), limits),
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

  int chunks() const override { return plane_chunks() * y_.slabs.count(); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const auto s = static_cast<size_t>(chunk / plane_chunks());
    const Part& part = parts_[s];
    if (part.rows == 0) return;
    const int above = static_cast<int>(part.begin - (y_.slabs.begin(static_cast<int>(s)) * stride_[0] - padding_[0]));
    const float* scale_y = scale_y_.empty() ? nullptr : scale_y_.data() + y_.slabs.begin(static_cast<int>(s));
    for_planes(chunk % plane_chunks(), [&](size_t c) {
      for (int64_t n = 0; n < batch_; n++) {
        const float* x = x_.plane(context, c, n) + x_.slabs.at(x_.slabs.cut() ? static_cast<int>(s) : 0) + (part.begin - first_row(s)) * x_.pitch;
        float* y = y_.plane(context, c, n) + y_.slabs.at(static_cast<int>(s));
        const Window window = {x, y, static_cast<int>(part.end - part.begin), size_[1], part.rows, size_[3],
                               x_.pitch, y_.pitch, kernel_[0], kernel_[1], stride_[0], stride_[1], above, padding_[1],
                               dilation_[0], dilation_[1], scale_y, scale_x_.data()};
        (max_ ? kernels.max_pool : kernels.sum_pool)(window);
      }
    });
  }

  std::string kernel(const Kernels& kernels) const override {
    return std::string(max_ ? "max_pool_f32_" : "avg_pool_f32_") + kernels.name;
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

  bool max_;
  int64_t batch_;
  std::vector<int> size_, kernel_, stride_, padding_, dilation_;
  View x_, y_;
  Held<float> scale_y_, scale_x_;
  std::vector<Part> parts_;
};

// y[c, n, i, j] = x[c, n, from[c] + i * step_y, j * step_x] for i < rows[c], j < columns[c]; `from` is 0 where it is not given.
// In a target cut into slabs `halo` rows [above, below] of a slab are filled as well, from wherever they lie, and with
// `only_halo` they alone. Of P planes, copies c, c + P / together, c + 2 P / together ... are made one after the other: they read
// the same plane.
class CopyStep final : public PlaneStep {
 public:
  CopyStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("x").positions("planes").size() / apart(f), limits.threads),
        together_(apart(f)),
        batch_(f.integer("batch")),
        step_(f.numbers("step", 2)),
        x_(f.inner("x"), limits),
        y_(f.inner("y"), limits),
        rows_(f.positions("rows")),
        columns_(f.positions("columns")),
        from_(f.positions("from")),
        only_halo_(f.boolean("only_halo", false)) {
    if (f.given("halo")) halo_ = f.numbers("halo", 2);
    x_.check_head(limits);
    y_.check_target(limits);
    const size_t planes = x_.offset.size();
    require(y_.offset.size() == planes && rows_.size() == planes && columns_.size() == planes, "a copy needs as many output as input planes");
    require(planes % together_ == 0, "planes that are copied together must be as many as each other");
    require(from_.empty() || from_.size() == planes, "a copy needs a first row for each plane, or none");
    require_size(batch_, 1, "batch must be at least 1");
    require(batch_ == 1 || !(x_.slabs.cut() || y_.slabs.cut()), "slabs are for a batch of one image");
    for (int step : step_) require(step >= 1 && step < (1 << 24), "a copy's steps must be positive");
    for (int rows : halo_) require(rows >= 0 && rows < (1 << 24), "rows of a halo are out of range");
    for (size_t c = 0; c < planes; c++) {
      require(rows_[c] >= 1 && columns_[c] >= 1, "a copy needs at least one row and column");
      require(from(c) >= 0, "a plane lies outside its buffer");
      const int64_t last_row = from(c) + (rows_[c] - int64_t{1}) * step_[0], last_column = (columns_[c] - int64_t{1}) * step_[1];
      require(last_row < kMaxSize && last_column < kMaxSize, "a plane lies outside its buffer");
      x_.slabs.require_holds(last_row + 1);
      y_.slabs.require_holds(rows_[c]);
      x_.check_rows(limits, batch_, 0, x_.slabs.most_rows(static_cast<int>(last_row) + 1), last_column + 1, c);
      for (int s = 0; s < y_.slabs.count(); s++) {
        const auto [begin, end] = rows_of(s, c);
        if (begin < end) y_.check_rows(limits, batch_, begin - y_.slabs.begin(s), end - y_.slabs.begin(s), columns_[c], c);
      }
    }
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("copy_f32_") + kernels.name; }

  int chunks() const override { return plane_chunks() * y_.slabs.count(); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int s = chunk / plane_chunks();
    const int64_t own = y_.slabs.begin(s), next = y_.slabs.begin(s + 1);
    const size_t planes = x_.offset.size();
    for_planes(chunk % plane_chunks(), [&](size_t first_copy) {
      for (size_t c = first_copy; c < planes; c += planes / together_) {
        const auto [begin, end] = rows_of(s, c);
        fetch(context, s, c + kAhead);
        for (int64_t n = 0; n < batch_; n++) {
          float* y = y_.plane(context, c, n) + y_.slabs.at(s) - own * y_.pitch;
          for (int64_t i = begin, rows; i < end; i += rows) {
            if (only_halo_ && i == own) i = std::min(next, end);
            if (i == end) break;
            const int64_t first = from(c) + i * step_[0];
            rows = std::min((only_halo_ && i < own ? std::min(own, end) : end) - i, x_.rows_left(first, step_[0]));
            kernels.copy_rows(x_.row(context, c, n, first), step_[0] * x_.pitch, step_[1], y + i * y_.pitch, y_.pitch, rows, columns_[c]);
          }
        }
      }
    });
  }

 private:
  static constexpr size_t kAhead = 4;  // planes

  // Asks for what a later plane's copy reads and writes: rows are short, and planes lie where no prefetcher expects them.
  void fetch(const Context& context, int slab, size_t c) const {
    if (c >= x_.offset.size()) return;
    const auto [begin, end] = rows_of(slab, c);
    if (begin == end) return;
    const int64_t own = y_.slabs.begin(slab), first = from(c) + begin * step_[0];
    const float* const y = y_.plane(context, c, 0) + y_.slabs.at(slab) + (begin - own) * y_.pitch;
    for (const float* line = y; line < y + (end - begin) * y_.pitch; line += kUnit) __builtin_prefetch(line, 1, 2);
    const int64_t rows = std::min(end - begin, x_.rows_left(first, step_[0])) * step_[0];
    const float* const x = x_.row(context, c, 0, first);
    for (const float* line = x; line < x + rows * x_.pitch; line += kUnit) __builtin_prefetch(line, 0, 3);
  }

  static size_t apart(const Fields& f) {
    const int together = f.small("together", 1);
    require(together >= 1, "planes that are copied together must be at least one");
    return static_cast<size_t>(together);
  }

  int64_t from(size_t plane) const { return from_.empty() ? 0 : from_[plane]; }

  // Rows [begin, end) of an image that a slab takes, its halo among them.
  std::pair<int64_t, int64_t> rows_of(int slab, size_t plane) const {
    if (!y_.slabs.cut()) return {0, rows_[plane]};
    const int64_t own = y_.slabs.begin(slab), rows = rows_[plane];
    return {std::clamp<int64_t>(own - halo_[0], 0, rows), std::clamp<int64_t>(y_.slabs.begin(slab + 1) + halo_[1], 0, rows)};
  }

  size_t together_;
  int64_t batch_;
  std::vector<int> step_, halo_ = {0, 0};
  View x_, y_;
  std::vector<int32_t> rows_, columns_, from_;
  bool only_halo_;
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
        x_(f.inner("x"), limits) {
    x_.check_head(limits);
    require_size(batch_, 1, "batch must be at least 1");
    require_size(y_, 0, "the output lies outside the arena");
    require_size(y_stride_, 0, "the output's stride is out of range");
    require(h_ >= 1 && w_ >= 1 && w_ <= x_.pitch, "a mean needs at least one row and column");
    require(y_ + (batch_ - 1) * y_stride_ + static_cast<int64_t>(x_.offset.size()) <= limits.arena, "the output lies outside the arena");
    require(batch_ == 1 || !x_.slabs.cut(), "slabs are for a batch of one image");
    x_.slabs.require_holds(h_);
    for (size_t c = 0; c < x_.offset.size(); c++) x_.check(limits, batch_, x_.slabs.most_rows(h_), w_, c);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("mean_f32_") + kernels.name; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    for_planes(chunk, [&](size_t c) {
      for (int64_t n = 0; n < batch_; n++) {
        float total = 0;
        for (int s = 0; s < x_.slabs.count(); s++)
          if (const int64_t rows = x_.slabs.height(s, h_)) total += kernels.sum(x_.plane(context, c, n) + x_.slabs.at(s), (rows - 1) * x_.pitch + w_);
        context.arena[y_ + n * y_stride_ + static_cast<int64_t>(c)] = total * scale_;
      }
    });
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
