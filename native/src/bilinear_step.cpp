// Images of another size, each pixel a weighted mean of the four around it: bilinear interpolation.

#include <array>

#include "images.hpp"

namespace openwork {
namespace {

// Along one axis, output i is (1 - share[i]) x[at[i]] + share[i] x[next[i]], where next is at + 1 unless that is outside.
struct Axis {
  Axis(std::vector<int32_t> places, Held<float> shares, int from, int to) : at(std::move(places)), share(std::move(shares)) {
    require(from >= 1 && to >= 1 && from < (1 << 24) && to < (1 << 24), "an image needs at least one row and column");
    require(at.size() == static_cast<size_t>(to) && share.size() == at.size(), "interpolation needs one place and share for each output row and column");
    for (int32_t place : at) {
      require(place >= 0 && place < from, "interpolation reads outside the image");
      next.push_back(std::min(place + 1, from - 1));
    }
  }

  std::vector<int32_t> at, next;
  Held<float> share;
};

// Rows are widened first, each once for all outputs that read it; then two of them are mixed for every output row.
class BilinearStep final : public PlaneStep {
 public:
  BilinearStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.inner("x").positions("planes").size(), limits.threads),
        batch_(f.integer("batch")),
        size_(f.numbers("size", 4)),
        rows_(f.integers("row"), f.floats("row_share"), size_[0], size_[2]),
        columns_(f.integers("column"), f.floats("column_share"), size_[1], size_[3]),
        x_(f.inner("x"), limits),
        y_(f.inner("y"), limits) {
    x_.check_head(limits);
    y_.check_target(limits);
    require(x_.offset.size() == y_.offset.size(), "interpolation needs as many output as input planes");
    require_whole(x_);
    require_whole(y_);
    require_size(batch_, 1, "batch must be at least 1");
    for (size_t c = 0; c < x_.offset.size(); c++) {
      x_.check(limits, batch_, size_[0], size_[1], c);
      y_.check(limits, batch_, size_[2], size_[3], c);
    }
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("bilinear_f32_") + kernels.name; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    for_planes(chunk, [&](size_t c) { run_plane(kernels, context, c); });
  }

 private:
  void run_plane(const Kernels& kernels, const Context& context, size_t c) const {
    for (int64_t n = 0; n < batch_; n++)
      for (int begin = 0; begin < size_[3]; begin += kTile) run_tile(kernels, x_.plane(context, c, n), y_.plane(context, c, n), begin, std::min(kTile, size_[3] - begin));
  }

  static constexpr int kTile = 1024;  // columns whose two widened rows fit into the first cache

  void run_tile(const Kernels& kernels, const float* x, float* y, int begin, int count) const {
    std::array<std::array<float, kTile>, 2> wide;
    std::array<int32_t, 2> held = {-1, -1};  // which row lies in each half: neighbours never share one
    const auto widened = [&](int32_t row) {
      const size_t half = static_cast<size_t>(row) % 2;
      if (held[half] != row) kernels.widen(x + row * x_.pitch, &columns_.at[static_cast<size_t>(begin)], &columns_.next[static_cast<size_t>(begin)], columns_.share.data() + begin, wide[half].data(), count);
      held[half] = row;
      return wide[half].data();
    };
    for (size_t row = 0; row < rows_.at.size(); row++)
      kernels.mix(widened(rows_.at[row]), widened(rows_.next[row]), rows_.share[row], y + static_cast<int64_t>(row) * y_.pitch + begin, count);
  }

  int64_t batch_;
  std::vector<int> size_;  // height and width, of the image that is read and of the one that is made
  Axis rows_, columns_;
  View x_, y_;
};

const StepKind kind("bilinear", make<BilinearStep>);

}  // namespace
}  // namespace openwork
