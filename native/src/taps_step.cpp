// Convolutions of every kind, batch norm, additions and activations: weighted sums of shifted planes.

#include <algorithm>
#include <bit>

#include "activation.hpp"
#include "levels.hpp"
#include "slabs.hpp"
#include "tap_lists.hpp"

namespace openwork {
namespace {

class TapsStep final : public Step {
 public:
  TapsStep(const Fields& f, const Limits& limits)
      : mb_(f.small("mb")),
        vectors_(f.small("vectors")),
        value_(f.floats("value")),
        bias_(f.floats("bias")),
        out_(f.positions("out")),
        residual_(f.positions("residual")),
        slabs_(f, limits.arena),
        inside_(inside_slabs(f.numbers("grid"), slabs_)),
        bounds_(f),
        act_(f) {
    require(mb_ == 1 || mb_ == 2 || mb_ == 4 || mb_ == 8, "rows in a block must be 1, 2, 4 or 8");
    require(vectors_ >= 1 && vectors_ <= kMaxVectors, "vectors in a tile must be 1 to 12");
    TapLists lists(f, mb_, static_cast<int64_t>(out_.size()));
    start_ = std::move(lists.start);
    cut_taps(f.small("pieces", 1), lists);
    const size_t rows = (start_.size() - 1) * static_cast<size_t>(mb_);
    require(value_.size() == static_cast<size_t>(start_.back()) * static_cast<size_t>(mb_), "taps need one value for each row of the block");
    require(bias_.size() == rows, "taps need one bias for each row");
    require(out_.size() == rows, "taps need one output plane for each row");
    levels_ = Levels(f, start_, rows);
    require(levels_.count() == 1 || cut_.size() == 2, "taps of several levels cannot be cut into pieces");
    require(residual_.empty() || residual_.size() == rows, "taps need one residual plane for each row, or none");
    const int64_t reach = static_cast<int64_t>(inside_.front().size()) * kUnit;  // no slab is higher than the first
    require_inside(out_, reach, slabs_.floats(), "an output plane lies outside the arena");
    require_inside(residual_, reach, slabs_.floats(), "a residual plane lies outside the arena");
    const std::vector<int32_t> table = tap_table(f);
    offset_.reserve(lists.index.size());
    for (int32_t i : lists.index) {
      require(i >= 0 && static_cast<size_t>(i) < table.size(), "a tap's index lies outside its table");
      offset_.push_back(table[static_cast<size_t>(i)]);
    }
    require_inside(offset_, reach, slabs_.floats(), "a tap reads outside the arena");
    row_cut_ = even_cuts(start_, std::max(1, f.small("row_chunks")), 1);
    tile_chunks_ = static_cast<int>(std::clamp<int64_t>(f.small("tile_chunks"), 1, static_cast<int64_t>(inside_.front().size())));
    require((static_cast<int64_t>(row_cut_.size()) - 1) * tile_chunks_ * slabs_.count() < kMaxSize, "taps are cut into too many chunks");
  }

  int levels() const override { return levels_.count(); }
  int chunks() const override { return slab_chunks() * slabs_.count(); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int slab = chunk / slab_chunks();
    float* const arena = context.arena + slabs_.at(slab);
    const std::vector<uint16_t>& inside = inside_[static_cast<size_t>(slab)];
    const int32_t* const residual = residual_.empty() ? nullptr : residual_.data();
    const auto taps = [&](size_t piece, bool last) {
      return Taps{arena, arena, cut_[piece].data(), cut_[piece + 1].data(), list_.data(), offset_.data(), value_.data(), bias_.data(), out_.data(),
                  last ? residual : nullptr, inside.data(), last ? bounds_.lo : -__builtin_inff(), last ? bounds_.hi : __builtin_inff(), piece > 0, nullptr};
    };
    const auto last_taps = [&](size_t piece) {
      Taps found = taps(piece, true);
      if (context.level && levels_.count() > 1) {
        found.end = levels_.end(context.level);
        found.bias = levels_.bias(context.level);
        found.scale = levels_.scale(context.level);
      }
      return found;
    };
    const auto& family = kernels.taps[std::countr_zero(static_cast<unsigned>(mb_))];
    const int widest = fitting(kernels);
    const int64_t vectors = static_cast<int64_t>(inside.size()) * (kUnit / kernels.lanes);
    const int rows = chunk % slab_chunks() / tile_chunks_, part = chunk % tile_chunks_;
    const int block_begin = row_cut_[static_cast<size_t>(rows)], block_end = row_cut_[static_cast<size_t>(rows) + 1];
    // Tiles of a chunk differ by at most one vector: a short last tile would waste most of its broadcasts.
    const int64_t first = vectors * part / tile_chunks_, count = vectors * (part + 1) / tile_chunks_ - first;
    const int64_t tiles = (count + widest - 1) / widest;
    for (int group = block_begin, next; group < block_end; group = next) {
      next = group_end(group, block_end);
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t begin = first + count * t / tiles, end = first + count * (t + 1) / tiles;
        const TapsKernel kernel = family[end - begin - 1];
        const int64_t q = begin * kernels.lanes, n = (end - begin) * kernels.lanes;
        const size_t last = cut_.size() - 2;
        for (size_t piece = 0; piece < last; piece++) kernel(taps(piece, false), q, group, next);
        if (act_)
          run_activated(kernels, kernel, last_taps(last), q, n, group, next);
        else
          kernel(last_taps(last), q, group, next);
      }
    }
  }

  std::string kernel(const Kernels& kernels) const override {
    return "taps_f32_" + std::to_string(mb_) + "x" + std::to_string(fitting(kernels)) + "_" + kernels.name + act_.suffix();
  }

 private:
  int slab_chunks() const { return (static_cast<int>(row_cut_.size()) - 1) * tile_chunks_; }

  // A few blocks at a time, so that their tile still lies in the first cache when the activation comes over it.
  void run_activated(const Kernels& kernels, TapsKernel kernel, const Taps& taps, int64_t q, int64_t n, int block_begin, int block_end) const {
    const int each = std::max(1, 32 / mb_);
    for (int b = block_begin; b < block_end; b += each) {
      const int end = std::min(b + each, block_end);
      kernel(taps, q, b, end);
      for (int row = b * mb_; row < end * mb_; row++) {
        float* y = taps.arena_out + taps.out[row] + q;
        act_.apply(kernels, y, y, n, static_cast<size_t>(row), taps.inside, q);
      }
    }
  }

  // The tile was tuned for one instruction set; another one may have fewer registers.
  int fitting(const Kernels& kernels) const {
    const auto& family = kernels.taps[std::countr_zero(static_cast<unsigned>(mb_))];
    int vectors = vectors_;
    while (vectors > 1 && !family[vectors - 1]) vectors--;
    return vectors;
  }

  // The blocks from `begin` on whose values stay in the L2 cache while tile after tile walks them.
  int group_end(int begin, int end) const {
    constexpr int64_t kGroupBytes = 128 << 10;
    const int64_t first = start_[static_cast<size_t>(begin)];
    int next = begin + 1;
    while (next < end && (start_[static_cast<size_t>(next) + 1] - first) * mb_ * int64_t{sizeof(float)} <= kGroupBytes) next++;
    return next;
  }

  // Cuts the taps of every block at the same columns, so that all blocks walk a few channels, whose tile lies in the first
  // cache, before they walk the next ones.
  void cut_taps(int pieces, const TapLists& lists) {
    require(pieces >= 1 && pieces <= 64, "taps must be cut into 1 to 64 pieces");
    const size_t blocks = start_.size() - 1;
    const int64_t columns = lists.index.empty() ? 0 : int64_t{*std::ranges::max_element(lists.index)} + 1;
    cut_.assign(static_cast<size_t>(pieces) + 1, std::vector<int32_t>(blocks));
    for (size_t b = 0; b < blocks; b++) {
      list_.push_back(lists.first[b] - start_[b]);
      const auto begin = lists.index.begin() + lists.first[b], end = begin + (start_[b + 1] - start_[b]);
      auto at = begin;
      for (int p = 0; p <= pieces; p++) {
        at = p == pieces ? end : std::find_if(at, end, [&](int32_t column) { return column * int64_t{pieces} >= columns * p; });
        cut_[static_cast<size_t>(p)][b] = start_[b] + static_cast<int32_t>(at - begin);
      }
    }
  }

  int mb_, vectors_, tile_chunks_ = 1;
  std::vector<int32_t> start_, list_, offset_;
  std::vector<std::vector<int32_t>> cut_;  // [pieces + 1][blocks], where each piece of a block's taps begins
  Held<float> value_, bias_;
  std::vector<int32_t> out_, residual_;
  Slabs slabs_;
  std::vector<std::vector<uint16_t>> inside_;
  std::vector<int> row_cut_;
  Levels levels_;
  Bounds bounds_;
  Activation act_;
};

const StepKind kind("taps", make<TapsStep>);

}  // namespace
}  // namespace openwork
