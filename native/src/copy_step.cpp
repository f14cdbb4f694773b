// Copies between layouts.

#include "images.hpp"

namespace openwork {
namespace {

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

const StepKind copy_kind("copy", make<CopyStep>);

}  // namespace
}  // namespace openwork
