// What steps of taps share, whatever they add up: blocks of rows, the planes that these read and write, and how the work is cut.
#pragma once

#include <algorithm>
#include <bit>

#include "activation.hpp"
#include "slabs.hpp"
#include "tap_lists.hpp"

namespace openwork {

// Field "mb": rows that share their taps; 16 in tiles only.
inline int block_rows(const Fields& f, bool tiles = false) {
  const int mb = f.small("mb");
  require(mb == 1 || mb == 2 || mb == 4 || mb == 8 || (tiles && mb == kTile), tiles ? "rows in a block must be 1, 2, 4, 8 or 16" : "rows in a block must be 1, 2, 4 or 8");
  return mb;
}

class TapBlocks {
 public:
  // `unit` blocks stay in one chunk.
  TapBlocks(const Fields& f, const Limits& limits, const TapLists& lists, int unit)
      : mb_(lists.rows),
        vectors_(f.small("vectors")),
        unit_(unit),
        start_(lists.start),
        offset_(tap_offsets(f, lists)),
        slabs_(f, limits.arena),
        inside_(inside_slabs(f.numbers("grid"), slabs_)) {
    require(vectors_ >= 1 && vectors_ <= kMaxVectors, "vectors in a tile must be 1 to 12");
    require(blocks() % static_cast<size_t>(unit) == 0, "outputs must fill whole planes");
    for (size_t b = 0; b < blocks(); b++) list_.push_back(lists.first[b] - start_[b]);
    check_planes(offset_, "a tap reads outside the arena");
    row_cut_ = even_cuts(start_, std::max(1, f.small("row_chunks")), unit);
    tile_chunks_ = static_cast<int>(std::clamp<int64_t>(f.small("tile_chunks"), 1, static_cast<int64_t>(inside_.front().size())));
    require((static_cast<int64_t>(row_cut_.size()) - 1) * tile_chunks_ * slabs_.count() < kMaxSize, "taps are cut into too many chunks");
  }

  int mb() const { return mb_; }
  int vectors() const { return vectors_; }
  size_t blocks() const { return start_.size() - 1; }
  size_t rows() const { return blocks() * static_cast<size_t>(mb_); }
  const std::vector<int32_t>& start() const { return start_; }  // [blocks + 1]
  const int32_t* list() const { return list_.data(); }          // see Taps
  const int32_t* offset() const { return offset_.data(); }

  // Every position of planes, or of taps, lies inside a slab.
  void check_planes(const std::vector<int32_t>& planes, const char* what) const {
    require_inside(planes, static_cast<int64_t>(inside_.front().size()) * kUnit, slabs_.floats(), what);  // no slab is higher than the first
  }

  int chunks() const { return slab_chunks() * slabs_.count(); }
  // Where the slab of a chunk begins in the arena, and its pixels.
  int64_t slab_at(int chunk) const { return slabs_.at(chunk / slab_chunks()); }
  const uint16_t* inside(int chunk) const { return inside_[static_cast<size_t>(chunk / slab_chunks())].data(); }

  // Which kernels of a family have blocks of so many rows.
  size_t family() const { return static_cast<size_t>(std::countr_zero(static_cast<unsigned>(mb_))); }

  // Vectors of positions in a tile: it was tuned for one instruction set, and another one may have fewer registers.
  template <class Kernel>
  int fitting(const Kernel* kernels) const {
    int vectors = vectors_;
    while (vectors > 1 && !kernels[vectors - 1]) vectors--;
    return vectors;
  }

  // Blocks [begin, end) over some vectors of positions from q on.
  struct Tile {
    int64_t q;
    int vectors, begin, end;
  };

  template <class Run>
  void for_tiles(int chunk, int lanes, int widest, const Run& run) const {
    const int64_t vectors = static_cast<int64_t>(inside_[static_cast<size_t>(chunk / slab_chunks())].size()) * (kUnit / lanes);
    const int rows = chunk % slab_chunks() / tile_chunks_, part = chunk % tile_chunks_;
    const int block_begin = row_cut_[static_cast<size_t>(rows)], block_end = row_cut_[static_cast<size_t>(rows) + 1];
    // Tiles of a chunk differ by at most one vector: a short last tile would waste most of its broadcasts.
    const int64_t first = vectors * part / tile_chunks_, count = vectors * (part + 1) / tile_chunks_ - first;
    const int64_t tiles = (count + widest - 1) / widest;
    for (int group = block_begin, next; group < block_end; group = next) {
      next = group_end(group, block_end);
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t begin = first + count * t / tiles, end = first + count * (t + 1) / tiles;
        run(Tile{begin * lanes, static_cast<int>(end - begin), group, next});
      }
    }
  }

  // Runs `kernel` (blocks from, to) on a tile of a chunk, and the activation after it, a few blocks at a time, so that these still lie in
  // the first cache when it comes over them. `out` are the rows' planes, from `arena`, where the chunk's slab begins.
  template <class Run>
  void run_activated(const Kernels& kernels, const Activation& act, float* arena, const std::vector<int32_t>& out, int chunk, const Tile& tile, const Run& kernel) const {
    if (!act) return kernel(tile.begin, tile.end);
    const int each = std::max(1, 32 / mb_);
    for (int b = tile.begin; b < tile.end; b += each) {
      const int end = std::min(b + each, tile.end);
      kernel(b, end);
      for (size_t row = static_cast<size_t>(b * mb_); row < static_cast<size_t>(end * mb_); row++) {
        float* y = arena + out[row] + tile.q;
        act.apply(kernels, y, y, int64_t{tile.vectors} * kernels.lanes, row, inside(chunk), tile.q);
      }
    }
  }

 private:
  int slab_chunks() const { return (static_cast<int>(row_cut_.size()) - 1) * tile_chunks_; }

  // The blocks from `begin` on whose values stay in the L2 cache while tile after tile walks them. Those of 16 rows may be more: the more
  // of them share what is copied for them, the better.
  int group_end(int begin, int end) const {
    constexpr int64_t kValueBytes = 4;  // a float, or a quad
    const int64_t most = mb_ == kTile ? 1 << 20 : 128 << 10;
    const int64_t first = start_[static_cast<size_t>(begin)];
    int next = begin + unit_;
    while (next < end && (start_[static_cast<size_t>(next + unit_)] - first) * mb_ * kValueBytes <= most) next += unit_;
    return next;
  }

  int mb_, vectors_, unit_, tile_chunks_ = 1;
  std::vector<int32_t> start_, list_, offset_;
  Slabs slabs_;
  std::vector<std::vector<uint16_t>> inside_;
  std::vector<int> row_cut_;
};

}  // namespace openwork
