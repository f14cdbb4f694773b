// 3 x 3 convolutions by Winograd's products: fewer multiplications, two transforms around them.
//
// The outputs of an image are cut into tiles of m x m. A block of tiles goes through three phases while it lies in the second
// cache: its values at the points, products with the transformed weights for some panels of outputs, and the way back. Where
// threads share tiles and own outputs, the values of all tiles are a round of their own. Kernels: winograd_kernels.inl.

#include <algorithm>
#include <cmath>

#include "activation.hpp"
#include "slabs.hpp"

namespace openwork {
namespace {

constexpr int64_t kSumFloats = 192 << 10;   // of the panels that are worked on together: they stay in the second cache
constexpr int64_t kSharedFloats = 4 << 20;  // of values that threads share

// An odd multiple of a cache line: what lies so far apart does not collide in the cache.
int64_t spread(int64_t floats) { return ((floats + kUnit - 1) / kUnit | 1) * kUnit; }

class WinogradStep final : public Step {
 public:
  WinogradStep(const Fields& f, const Limits& limits)
      : m_(f.small("tile")),
        width_(f.small("width")),
        threads_(limits.threads),
        grid_(f.numbers("grid", 5)),
        slabs_(f, limits.arena),
        value_(f.aligned_floats("value")),
        bias_(f.floats("bias")),
        out_(f.positions("out")),
        residual_(f.positions("residual")),
        bounds_(f),
        act_(f) {
    require(m_ == 2 || m_ == 4, "a tile must be 2 or 4 pixels wide");
    require(width_ == 16 || width_ == 32, "outputs in a panel must be 16 or 32");
    inside_slabs(grid_, slabs_);  // checks the grid
    across_ = (grid_[4] + m_ - 1) / m_;
    down_ = (slabs_.most_rows(grid_[3]) + m_ - 1) / m_;
    tiles_ = (slabs_.cut() ? slabs_.count() : grid_[0]) * across_ * down_;
    read_planes(f);
    parts_ = std::clamp<int64_t>(f.small("row_chunks"), 1, panels());
    tile_chunks_ = std::clamp<int64_t>(f.small("tile_chunks"), 1, tiles_);
    require(parts_ * tile_chunks_ < kMaxSize, "a Winograd step is cut into too many chunks");
    block_ = std::min<int64_t>(f.small("block"), tiles_);
    require(block_ >= 1, "tiles in a block must be at least 1");
    plan_scratch();
  }

  int chunks() const override { return static_cast<int>(parts_ * tile_chunks_); }
  int rounds() const override { return shared_ ? 2 : 1; }
  int64_t scratch() const override { return value_floats_ * (shared_ ? 1 : threads_) + sum_floats_ * threads_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int64_t c = chunk % chunks(), part = c / tile_chunks_, cut = c % tile_chunks_;
    float* const values = context.scratch + (shared_ ? 0 : value_floats_ * context.thread);
    if (shared_ && chunk < chunks()) return transform(kernels, context, values, 0, tiles_, channels() * c / chunks(), channels() * (c + 1) / chunks());
    const int64_t end = tiles_ * (cut + 1) / tile_chunks_, first = tiles_ * cut / tile_chunks_;
    const int64_t blocks = (end - first + block_ - 1) / block_;
    for (int64_t b = 0; b < blocks; b++) {  // blocks of a chunk differ by at most one tile
      const int64_t from = first + (end - first) * b / blocks, to = first + (end - first) * (b + 1) / blocks;
      if (!shared_) transform(kernels, context, values, from, to, 0, channels());
      multiply(kernels, context, values + (shared_ ? from : 0), from, to, panels() * part / parts_, panels() * (part + 1) / parts_);
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return "winograd_f32_" + std::to_string(m_) + "x" + std::to_string(m_) + "x" + std::to_string(width_) + "_" + kernels.name + act_.suffix();
  }

 private:
  // One that is summed as it is defined.
  struct Tile {
    float* sums;
    int64_t at, rows, columns;  // position of its first pixel, pixels
  };

  void read_planes(const Fields& f) {
    const auto phases = f.position_lists("planes");
    require(phases.size() == 1 && !phases.front().empty(), "a Winograd step reads the planes of one phase");
    const int64_t shift = f.integer("shift");
    require(shift > -kMaxSize && shift < kMaxSize, "the input's shift is out of range");
    for (int32_t plane : phases.front()) {
      require(plane + shift >= 0 && plane + shift <= INT32_MAX, "a tile reads outside the arena");
      offset_.push_back(static_cast<int32_t>(plane + shift));
    }
    const int64_t before = (grid_[0] - 1) * int64_t{grid_[1]} + (slabs_.most_rows(grid_[3]) - 1) * int64_t{grid_[2]};  // the last row
    require_inside(offset_, before + 2 * int64_t{grid_[2]} + grid_[4] + 2, slabs_.floats(), "a tile reads outside the arena");
    require_inside(out_, before + grid_[4], slabs_.floats(), "an output plane lies outside the arena");
    require_inside(residual_, before + grid_[4], slabs_.floats(), "a residual plane lies outside the arena");
    const size_t width = static_cast<size_t>(width_);
    require(!out_.empty() && bias_.size() == (out_.size() + width - 1) / width * width, "panels need one bias for each output");
    require(residual_.empty() || residual_.size() == out_.size(), "a Winograd step needs one residual plane for each output, or none");
    require(value_.size() == bias_.size() * offset_.size() * static_cast<size_t>(points()), "a panel needs one value for each point, channel and output");
  }

  void plan_scratch() {
    require(channels() * tiles_ < kMaxSize, "a Winograd step has too many tiles");
    shared_ = parts_ > 1 && spread(channels() * tiles_) * points() <= kSharedFloats;
    held_ = shared_ ? tiles_ : block_;
    value_stride_ = spread(channels() * held_);
    sum_stride_ = points() * width_ + kUnit;  // neighbours must not collide in the cache
    const int64_t panel = (block_ + kUnit) * sum_stride_;  // whole vectors of pixels are read
    group_ = std::clamp<int64_t>(kSumFloats / panel, 1, (panels() + parts_ - 1) / parts_);
    value_floats_ = value_stride_ * points();
    sum_floats_ = panel * group_;
    require(value_floats_ < kMaxSize && sum_floats_ < kMaxSize && scratch() < kMaxSize, "a Winograd step needs too much memory");
  }

  // Calls f(first tile, tiles, position of its first pixel, rows, columns of pixels) for tiles that lie beside each other. A slab
  // is an image of its own; below the last one's pixels there are tiles without any.
  template <class F>
  void each_row(int64_t from, int64_t to, const F& f) const {
    for (int64_t t = from, n; t < to; t += n) {
      const int64_t column = t % across_, line = t / across_, image = line / down_, row = line % down_ * m_;
      n = std::min(across_ - column, to - t);
      const int64_t rows = slabs_.height(slabs_.cut() ? static_cast<int>(image) : 0, grid_[3]) - row;
      const int64_t at = image * (slabs_.cut() ? slabs_.floats() : grid_[1]);
      if (rows > 0) f(t, n, at + row * grid_[2] + column * m_, std::min<int64_t>(m_, rows), std::min<int64_t>(n * m_, grid_[4] - column * m_));
    }
  }

  // Values of tiles [from, to) in some channels: values[point][channel][tile].
  void transform(const Kernels& kernels, const Context& context, float* values, int64_t from, int64_t to, int64_t channel_begin, int64_t channel_end) const {
    for (int64_t c = channel_begin; c < channel_end; c++)
      each_row(from, to, [&](int64_t t, int64_t n, int64_t at, int64_t rows, int64_t columns) {
        kernels.winograd_values[m_ / 4]({context.arena + offset_[static_cast<size_t>(c)] + at, grid_[2], rows + 2, columns + 2, n, values + c * held_ + t - from, value_stride_});
      });
  }

  // Outputs of tiles [from, to) for some panels, a group of panels at a time: what their sums hold stays in the cache, and so
  // do the values of a point while all of them read it.
  void multiply(const Kernels& kernels, const Context& context, const float* values, int64_t from, int64_t to, int64_t begin, int64_t end) const {
    float* const sums = context.scratch + value_floats_ * (shared_ ? 1 : threads_) + sum_floats_ * context.thread;
    const int64_t panel_floats = (block_ + kUnit) * sum_stride_;
    for (int64_t group = begin; group < end; group += group_) {
      const int64_t last = std::min(group + group_, end);
      for (int64_t point = 0; point < points(); point++)
        for (int64_t p = group; p < last; p++) {
          const bool next = p + 1 < last;  // whose weights come closer meanwhile
          products(kernels, values, sums + (p - group) * panel_floats, to - from, weights(p, point), next ? weights(p + 1, point) : weights(group, point + 1), point);
        }
      for (int64_t p = group; p < last; p++) finish(kernels, context, sums + (p - group) * panel_floats, from, to, p);
    }
  }

  void products(const Kernels& kernels, const float* values, float* sums, int64_t tiles, const float* weights, const float* ahead, int64_t point) const {
    const auto& family = kernels.winograd[width_ / 32];
    int widest = kMaxColumns;
    while (!family[widest - 1]) widest--;
    const int64_t pieces = (tiles + widest - 1) / widest, step = (width_ + pieces - 1) / pieces;
    for (int64_t i = 0; i < pieces; i++) {
      const int64_t first = tiles * i / pieces, count = tiles * (i + 1) / pieces - first;
      family[count - 1]({values + point * value_stride_ + first, held_, channels(), weights, sums + first * sum_stride_ + point * width_, sum_stride_,
                         ahead + i * step * channels(), step});
    }
  }

  // The way back and into the planes.
  void finish(const Kernels& kernels, const Context& context, float* sums, int64_t from, int64_t to, int64_t panel) const {
    if (!kernels.winograd_back[m_ / 4](sums, to - from, sum_stride_, width_)) repair(context, sums, from, to, panel);
    const size_t first = static_cast<size_t>(panel * width_);
    const int outputs = static_cast<int>(std::min<int64_t>(width_, static_cast<int64_t>(out_.size()) - panel * width_));
    each_row(from, to, [&](int64_t t, int64_t, int64_t at, int64_t rows, int64_t columns) {
      kernels.winograd_store[m_ / 4]({sums + (t - from) * sum_stride_, sum_stride_, width_, outputs, bias_.data() + first, context.arena, context.arena, out_.data() + first,
                                      residual_.empty() ? nullptr : residual_.data() + first, at, grid_[2], rows, columns, bounds_.lo, bounds_.hi});
      if (!act_) return;
      for (int o = 0; o < outputs; o++)
        for (int64_t r = 0; r < rows; r++) {
          float* const y = context.arena + out_[first + static_cast<size_t>(o)] + at + r * grid_[2];
          act_.apply(kernels, y, y, columns, first + static_cast<size_t>(o));
        }
    });
  }

  // What is not finite spoils its whole tile at the points, and spoils every output that depends on it for certain. Such
  // tiles are summed again as they are defined.
  void repair(const Context& context, float* sums, int64_t from, int64_t to, int64_t panel) const {
    Tile bad[64];
    size_t count = 0;
    each_row(from, to, [&](int64_t t, int64_t n, int64_t at, int64_t rows, int64_t columns) {
      for (int64_t i = 0; i < n; i++) {
        float* const begin = sums + (t - from + i) * sum_stride_;
        if (std::all_of(begin, begin + m_ * m_ * width_, [](float y) { return std::isfinite(y); })) continue;
        std::fill_n(begin, m_ * m_ * width_, 0.0f);
        bad[count++] = {begin, at + i * m_, rows, std::min<int64_t>(m_, columns - i * m_)};
        if (count == std::size(bad)) {
          sum_plainly(context, bad, panel);
          count = 0;
        }
      }
    });
    if (count) sum_plainly(context, {bad, count}, panel);
  }

  void sum_plainly(const Context& context, std::span<const Tile> tiles, int64_t panel) const {
    float kernel[9][32];
    for (int64_t c = 0; c < channels(); c++) {
      for (int k = 0; k < 9; k++) plain_weights(panel, c, k / 3, k % 3, kernel[k]);
      for (const Tile& tile : tiles)
        for (int64_t r = 0; r < tile.rows; r++)
          for (int64_t column = 0; column < tile.columns; column++)
            for (int k = 0; k < 9; k++) {
              const float x = context.arena[offset_[static_cast<size_t>(c)] + tile.at + (r + k / 3) * grid_[2] + column + k % 3];
              float* const y = tile.sums + (r * m_ + column) * width_;
              for (int o = 0; o < width_; o++) y[o] += x * kernel[k][o];
            }
    }
  }

  // Weight (ky, kx) of a panel's outputs, from its values at the points. Along one axis the first and the last weight are the
  // values at 0 and infinity, the one between is in proportion to the difference of those at two opposite points. What is left
  // where they cancel is rounding, and the weight was zero.
  void plain_weights(int64_t panel, int64_t channel, int ky, int kx, float* found) const {
    struct Term {
      int point;
      double factor;
    };
    const double middle = m_ == 2 ? 1.0 : -0.75 / double{kWinogradPoint};
    const Term terms[3][2] = {{{0, m_ == 2 ? -1.0 : 1.0}, {0, 0.0}}, {{1, middle}, {2, -middle}}, {{m_ + 1, 1.0}, {0, 0.0}}};
    for (int o = 0; o < width_; o++) {
      double sum = 0, size = 0;
      for (const Term& y : terms[ky])
        for (const Term& x : terms[kx]) {
          const double value = y.factor * x.factor * double{weights(panel, y.point * (m_ + 2) + x.point)[channel * width_ + o]};
          sum += value, size += std::abs(value);
        }
      found[o] = std::abs(sum) > 1e-6 * size ? static_cast<float>(sum) : 0.0f;
    }
  }

  // Of a panel at a point: [channel][width].
  const float* weights(int64_t panel, int64_t point) const { return value_.data() + (panel * points() + point) * channels() * width_; }

  int64_t points() const { return int64_t{m_ + 2} * (m_ + 2); }
  int64_t channels() const { return static_cast<int64_t>(offset_.size()); }
  int64_t panels() const { return static_cast<int64_t>(bias_.size()) / width_; }

  int m_, width_, threads_;
  std::vector<int> grid_;
  Slabs slabs_;
  Held<float> value_, bias_;
  std::vector<int32_t> offset_, out_, residual_;
  Bounds bounds_;
  Activation act_;
  int64_t across_ = 1, down_ = 1, tiles_ = 1;  // tiles beside and below each other in an image, in all
  int64_t parts_ = 1, tile_chunks_ = 1, block_ = 1, group_ = 1;
  bool shared_ = false;
  int64_t held_ = 1;  // tiles whose values are held
  int64_t value_stride_ = 0, sum_stride_ = 0, value_floats_ = 0, sum_floats_ = 0;
};

const StepKind kind("winograd", make<WinogradStep>);

}  // namespace
}  // namespace openwork
