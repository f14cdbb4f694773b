// Convolutions of every kind, batch norm, additions and activations: weighted sums of shifted planes.

#include <algorithm>

#include "levels.hpp"
#include "tap_blocks.hpp"

namespace openwork {
namespace {

class TapsStep final : public Step {
 public:
  TapsStep(const Fields& f, const Limits& limits) : TapsStep(f, limits, TapLists(f, block_rows(f), static_cast<int64_t>(f.positions("out").size()))) {}

  int levels() const override { return levels_.count(); }
  int chunks() const override { return blocks_.chunks(); }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    float* const arena = context.arena + blocks_.slab_at(chunk);
    const int32_t* const residual = residual_.empty() ? nullptr : residual_.data();
    const auto taps = [&](size_t piece, bool last) {
      return Taps{arena, arena, cut_[piece].data(), cut_[piece + 1].data(), blocks_.list(), blocks_.offset(), value_.data(), bias_.data(), out_.data(),
                  last ? residual : nullptr, blocks_.inside(chunk), last ? bounds_.lo : -__builtin_inff(), last ? bounds_.hi : __builtin_inff(), piece > 0, nullptr};
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
    const TapsKernel* const family = kernels.taps[blocks_.family()];
    blocks_.for_tiles(chunk, kernels.lanes, blocks_.fitting(family), [&](const TapBlocks::Tile& tile) {
      const TapsKernel kernel = family[tile.vectors - 1];
      const size_t last = cut_.size() - 2;
      for (size_t piece = 0; piece < last; piece++) kernel(taps(piece, false), tile.q, tile.begin, tile.end);
      const Taps taken = last_taps(last);
      blocks_.run_activated(kernels, act_, arena, out_, chunk, tile, [&](int begin, int end) { kernel(taken, tile.q, begin, end); });
    });
  }

  std::string kernel(const Kernels& kernels) const override {
    const int vectors = blocks_.fitting(kernels.taps[blocks_.family()]);
    return "taps_f32_" + std::to_string(blocks_.mb()) + "x" + std::to_string(vectors) + "_" + kernels.name + act_.suffix();
  }

 private:
  TapsStep(const Fields& f, const Limits& limits, const TapLists& lists)
      : blocks_(f, limits, lists, 1), value_(f.floats("value")), bias_(f.floats("bias")), out_(f.positions("out")), residual_(f.positions("residual")), bounds_(f), act_(f) {
    cut_taps(f.small("pieces", 1), lists);
    const size_t rows = blocks_.rows();
    require(value_.size() == static_cast<size_t>(blocks_.start().back()) * static_cast<size_t>(blocks_.mb()), "taps need one value for each row of the block");
    require(bias_.size() == rows, "taps need one bias for each row");
    require(out_.size() == rows, "taps need one output plane for each row");
    levels_ = Levels(f, blocks_.start(), rows);
    require(levels_.count() == 1 || cut_.size() == 2, "taps of several levels cannot be cut into pieces");
    require(residual_.empty() || residual_.size() == rows, "taps need one residual plane for each row, or none");
    blocks_.check_planes(out_, "an output plane lies outside the arena");
    blocks_.check_planes(residual_, "a residual plane lies outside the arena");
  }

  // Cuts the taps of every block at the same columns, so that all blocks walk a few channels, whose tile lies in the first
  // cache, before they walk the next ones.
  void cut_taps(int pieces, const TapLists& lists) {
    require(pieces >= 1 && pieces <= 64, "taps must be cut into 1 to 64 pieces");
    const int64_t columns = lists.index.empty() ? 0 : int64_t{*std::ranges::max_element(lists.index)} + 1;
    cut_.assign(static_cast<size_t>(pieces) + 1, std::vector<int32_t>(blocks_.blocks()));
    for (size_t b = 0; b < blocks_.blocks(); b++) {
      const auto begin = lists.index.begin() + lists.first[b], end = begin + (lists.start[b + 1] - lists.start[b]);
      auto at = begin;
      for (int p = 0; p <= pieces; p++) {
        at = p == pieces ? end : std::find_if(at, end, [&](int32_t column) { return column * int64_t{pieces} >= columns * p; });
        cut_[static_cast<size_t>(p)][b] = lists.start[b] + static_cast<int32_t>(at - begin);
      }
    }
  }

  TapBlocks blocks_;
  std::vector<std::vector<int32_t>> cut_;  // [pieces + 1][blocks], where each piece of a block's taps begins
  Held<float> value_, bias_;
  std::vector<int32_t> out_, residual_;
  Levels levels_;
  Bounds bounds_;
  Activation act_;
};

const StepKind kind("taps", make<TapsStep>);

}  // namespace
}  // namespace openwork
