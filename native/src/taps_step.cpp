// Convolutions of every kind, batch norm, additions and activations: weighted sums of shifted planes.

#include <algorithm>
#include <bit>

#include "step.hpp"

namespace openwork {
namespace {

class TapsStep final : public Step {
 public:
  TapsStep(const TapsSpec& s, const Limits& limits)
      : mb_(s.mb),
        vectors_(s.vectors),
        start_(copied(s.start)),
        value_(copied(s.value)),
        bias_(copied(s.bias)),
        out_(copied(s.out)),
        residual_(copied(s.residual)),
        inside_(copied(s.inside)),
        lo_(s.lo),
        hi_(s.hi) {
    require(s.mb == 1 || s.mb == 2 || s.mb == 4 || s.mb == 8, "rows in a block must be 1, 2, 4 or 8");
    require(s.vectors >= 1 && s.vectors <= kMaxVectors, "vectors in a tile must be 1 to 12");
    require_starts(s.start, s.index.size());
    const size_t rows = (s.start.size() - 1) * static_cast<size_t>(s.mb);
    require(s.value.size() == s.index.size() * static_cast<size_t>(s.mb), "taps need one value for each row of the block");
    require(s.bias.size() == rows, "taps need one bias for each row");
    require(s.out.size() == rows, "taps need one output plane for each row");
    require(s.residual.empty() || s.residual.size() == rows, "taps need one residual plane for each row, or none");
    require(!s.inside.empty(), "taps need at least one position");
    const int64_t reach = static_cast<int64_t>(s.inside.size()) * kUnit;
    require_inside(s.out, reach, limits.arena, "an output plane lies outside the arena");
    require_inside(s.residual, reach, limits.arena, "a residual plane lies outside the arena");
    offset_.reserve(s.index.size());
    for (int32_t i : s.index) {
      require(i >= 0 && static_cast<size_t>(i) < s.table.size(), "a tap's index lies outside its table");
      offset_.push_back(s.table[static_cast<size_t>(i)]);
    }
    require_inside(offset_, reach, limits.arena, "a tap reads outside the arena");
    cut_rows(std::max(1, s.row_chunks));
    tile_chunks_ = static_cast<int>(std::clamp<int64_t>(s.tile_chunks, 1, static_cast<int64_t>(s.inside.size())));
    require((static_cast<int64_t>(row_cut_.size()) - 1) * tile_chunks_ < kMaxSize, "taps are cut into too many chunks");
  }

  int chunks() const override { return (static_cast<int>(row_cut_.size()) - 1) * tile_chunks_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const Taps taps = {context.arena, context.arena,  start_.data(),  offset_.data(), value_.data(),
                       bias_.data(),  out_.data(),    residual_.empty() ? nullptr : residual_.data(),
                       inside_.data(), lo_, hi_};
    const auto& family = kernels.taps[std::countr_zero(static_cast<unsigned>(mb_))];
    const int widest = fitting(kernels);
    const int64_t vectors = static_cast<int64_t>(inside_.size()) * (kUnit / kernels.lanes);
    const int64_t tiles = (vectors + widest - 1) / widest;
    const int rows = chunk / tile_chunks_, part = chunk % tile_chunks_;
    const int block_begin = row_cut_[static_cast<size_t>(rows)], block_end = row_cut_[static_cast<size_t>(rows) + 1];
    // Tiles differ by at most one vector: a short last tile would waste most of its broadcasts.
    for (int64_t t = tiles * part / tile_chunks_; t < tiles * (part + 1) / tile_chunks_; t++) {
      const int64_t begin = vectors * t / tiles, end = vectors * (t + 1) / tiles;
      family[end - begin - 1](taps, begin * kernels.lanes, block_begin, block_end);
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return "taps_f32_" + std::to_string(mb_) + "x" + std::to_string(fitting(kernels)) + "_" + kernels.name;
  }

 private:
  // The tile was tuned for one instruction set; another one may have fewer registers.
  int fitting(const Kernels& kernels) const {
    const auto& family = kernels.taps[std::countr_zero(static_cast<unsigned>(mb_))];
    int vectors = vectors_;
    while (vectors > 1 && !family[vectors - 1]) vectors--;
    return vectors;
  }

  // Cuts the row blocks into ranges of nearly equal work, so that uneven filters balance.
  void cut_rows(int parts) {
    const int blocks = static_cast<int>(start_.size()) - 1;
    constexpr int64_t kEpilogue = 4;  // a block's bias, clamp and store cost about as much as four taps
    const auto work = [&](int b) { return start_[static_cast<size_t>(b)] + kEpilogue * b; };
    const int64_t total = work(blocks);
    row_cut_ = {0};
    for (int b = 1; b < blocks; b++)
      if (work(b) * parts >= total * static_cast<int64_t>(row_cut_.size())) row_cut_.push_back(b);
    row_cut_.push_back(blocks);
  }

  int mb_, vectors_, tile_chunks_ = 1;
  std::vector<int32_t> start_, offset_;
  std::vector<float> value_, bias_;
  std::vector<int32_t> out_, residual_;
  std::vector<uint16_t> inside_;
  std::vector<int> row_cut_;
  float lo_, hi_;
};

}  // namespace

std::unique_ptr<Step> make_step(const TapsSpec& spec, const Limits& limits) {
  return std::make_unique<TapsStep>(spec, limits);
}

}  // namespace openwork
