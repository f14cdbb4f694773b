// Convolutions without zeros: lanes run over outputs, so that no lane falls on padding, whatever the map's size.

#include <algorithm>

#include "activation.hpp"
#include "slabs.hpp"
#include "tap_lists.hpp"

namespace openwork {
namespace {

class DenseStep final : public Step {
 public:
  DenseStep(const Fields& f, const Limits& limits)
      : width_(f.small("width")),
        step_(f.small("step")),
        tile_(f.numbers("tile", 2)),
        grid_(f.numbers("grid", 5)),
        slabs_(f, limits.arena),
        x_stride_(f.integer("x_stride")),
        x_pitch_(f.integer("x_pitch")),
        x_shift_(f.integer("x_shift", 0)),
        x_whole_(f.boolean("x_whole", false)),
        value_(f.floats("value")),
        bias_(f.floats("bias")),
        out_(f.positions("out")),
        residual_(f.positions("residual")),
        bounds_(f),
        act_(f) {
    require(width_ == 16 || width_ == 32, "outputs in a panel must be 16 or 32");
    require(step_ == 1 || step_ == 2, "pixels must lie 1 or 2 floats apart");
    require(tile_[0] >= 1 && tile_[0] <= kMaxRows, "rows in a tile must be 1 to 3");
    require(tile_[1] >= 1 && tile_[1] <= kMaxColumns, "columns in a tile must be 1 to 14");
    inside_slabs(grid_, slabs_);  // checks the grid
    require_size(x_stride_, 0, "the input's stride is out of range");
    require_size(x_pitch_, 0, "the input's pitch is out of range");
    require(x_shift_ > -kMaxSize && x_shift_ < kMaxSize, "the input's shift is out of range");
    require(!out_.empty() && bias_.size() == (out_.size() + static_cast<size_t>(width_) - 1) / static_cast<size_t>(width_) * static_cast<size_t>(width_), "panels need one bias for each output");
    require(residual_.empty() || residual_.size() == out_.size(), "a dense step needs one residual plane for each output, or none");
    const TapLists lists(f, width_, static_cast<int64_t>(bias_.size()));
    start_ = lists.start;
    first_ = lists.first;
    require(value_.size() == static_cast<size_t>(start_.back()) * static_cast<size_t>(width_), "columns need one value for each output of the panel");
    const int64_t below = slabs_.most_rows(grid_[3]) - 1;  // of an image's rows in a slab, the first
    const int64_t reach = (batch() - 1) * int64_t{grid_[1]} + below * int64_t{grid_[2]} + columns();
    require_inside(out_, reach, slabs_.floats(), "an output plane lies outside the arena");
    require_inside(residual_, reach, slabs_.floats(), "a residual plane lies outside the arena");
    offset_ = tap_offsets(f, lists);
    const int64_t first = offset_.empty() ? 0 : *std::ranges::min_element(offset_), last = offset_.empty() ? 0 : *std::ranges::max_element(offset_);
    for (int s = 0; s < slabs_.count(); s++) {
      const int64_t rows = slabs_.height(s, grid_[3]), shift = s * x_shift_, size = x_whole_ ? limits.arena : slabs_.floats();
      if (rows == 0) continue;
      const int64_t read = (batch() - 1) * x_stride_ + (rows - 1) * x_pitch_ + (columns() - 1) * int64_t{step_} + 1;
      require(first + shift >= 0 && last + shift + read <= size, "a tap reads outside the arena");
    }
    parts_ = static_cast<int>(std::clamp<int64_t>(f.small("row_chunks"), 1, panels()));
    tile_chunks_ = static_cast<int>(std::clamp<int64_t>(f.small("tile_chunks"), 1, batch() * (below + 1)));
    require(int64_t{parts_} * tile_chunks_ * slabs_.count() < kMaxSize, "a dense step is cut into too many chunks");
  }

  int chunks() const override { return parts_ * tile_chunks_ * slabs_.count(); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int slab = chunk / (parts_ * tile_chunks_), piece = chunk % (parts_ * tile_chunks_);
    const int64_t height = slabs_.height(slab, grid_[3]);
    float* const arena = context.arena + slabs_.at(slab);
    const float* const x = (x_whole_ ? context.arena : arena) + slab * x_shift_;
    const auto& family = kernels.dense[width_ / 32][step_ - 1];
    const auto [tile_rows, tile_columns] = fitting(kernels);
    const int64_t across = (columns() + tile_columns - 1) / tile_columns;    // tiles beside each other
    const int64_t down = (height + tile_rows - 1) / tile_rows;                // below each other in an image
    const int64_t part = piece % tile_chunks_, bands = batch() * down;
    const int64_t band_begin = bands * part / tile_chunks_, band_end = bands * (part + 1) / tile_chunks_;
    const int64_t tiles = (band_end - band_begin) * across;
    if (tiles == 0) return;
    const int64_t panel_begin = panels() * (piece / tile_chunks_) / parts_, panel_end = panels() * (piece / tile_chunks_ + 1) / parts_;
    for (int64_t p = panel_begin; p < panel_end; p++) {
      const int64_t begin = start_[static_cast<size_t>(p)], taps = start_[static_cast<size_t>(p) + 1] - begin;
      Dense dense = {x, arena, offset_.data() + first_[static_cast<size_t>(p)], taps, value_.data() + begin * width_, bias_.data() + p * width_,
                     out_.data() + p * width_, residual_.empty() ? nullptr : residual_.data() + p * width_,
                     static_cast<int>(std::min<int64_t>(width_, static_cast<int64_t>(out_.size()) - p * width_)), x_pitch_, grid_[2], bounds_.lo, bounds_.hi, nullptr, 0};
      // While the tiles of a panel are worked on, the weights of the next one come closer, a share with each tile.
      const float* const next = dense.value + taps * width_;
      dense.ahead_step = (width_ + tiles - 1) / tiles;
      int64_t tile = 0;
      for (int64_t band = band_begin; band < band_end; band++) {
        const int64_t image = band / down, row = height * (band % down) / down, rows = height * (band % down + 1) / down - row;
        for (int64_t c = 0; c < across; c++, tile++) {
          const int64_t column = columns() * c / across, count = columns() * (c + 1) / across - column;
          dense.ahead = next + tile * taps * dense.ahead_step;
          family[rows - 1][count - 1](dense, image * x_stride_ + row * x_pitch_ + column * step_, image * grid_[1] + row * grid_[2] + column);
        }
        if (act_) activate(kernels, dense, p, image * grid_[1] + row * grid_[2], rows);
      }
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    const auto [rows, columns] = fitting(kernels);
    return "dense_f32_" + std::to_string(rows) + "x" + std::to_string(columns) + "x" + std::to_string(width_) + "_" + kernels.name + act_.suffix();
  }

 private:
  // Over some rows of pixels of a panel's outputs, while they are hot in the cache.
  void activate(const Kernels& kernels, const Dense& dense, int64_t panel, int64_t at, int64_t rows) const {
    for (int o = 0; o < dense.outputs; o++)
      for (int64_t r = 0; r < rows; r++) {
        float* y = dense.arena_out + dense.out[o] + at + r * grid_[2];
        act_.apply(kernels, y, y, columns(), static_cast<size_t>(panel * width_ + o));
      }
  }

  int64_t batch() const { return grid_[0]; }
  int64_t columns() const { return grid_[4]; }
  int64_t panels() const { return static_cast<int64_t>(first_.size()); }

  // The tile was tuned for one instruction set; another one may have fewer registers.
  std::pair<int, int> fitting(const Kernels& kernels) const {
    const auto& family = kernels.dense[width_ / 32][step_ - 1];
    int rows = static_cast<int>(std::min<int64_t>(tile_[0], grid_[3])), columns = static_cast<int>(std::min<int64_t>(tile_[1], this->columns()));
    while (rows > 1 && !family[rows - 1][columns - 1]) rows--;
    while (columns > 1 && !family[rows - 1][columns - 1]) columns--;
    return {rows, columns};
  }

  int width_, step_;
  std::vector<int> tile_, grid_;
  Slabs slabs_;
  int64_t x_stride_, x_pitch_;
  int64_t x_shift_;  // how much farther into its slab a slab's first pixel reads than that of the one before
  bool x_whole_;     // the input lies in the arena as a whole, the output in slabs
  std::vector<int32_t> start_, first_, offset_;
  Held<float> value_, bias_;
  std::vector<int32_t> out_, residual_;
  Bounds bounds_;
  Activation act_;
  int parts_ = 1, tile_chunks_ = 1;
};

const StepKind kind("dense", make<DenseStep>);

}  // namespace
}  // namespace openwork
