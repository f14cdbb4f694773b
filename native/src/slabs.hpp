// Images cut into slabs of rows, one for each thread: slab s of every plane lies in a stretch of the arena that only slabs s
// share. No cache line, and no page that a prefetcher walks, then belongs to two threads.
#pragma once

#include <algorithm>

#include "step.hpp"

namespace openwork {

class Slabs {
 public:
  // Field "slabs": [count, floats from a slab to the next, rows of an image in each]; without it, one slab holds everything.
  Slabs(const Fields& f, int64_t arena) : floats_(arena) {
    if (!f.given("slabs")) return;
    const std::vector<int> given = f.numbers("slabs", 3);
    require(given[0] >= 1 && given[0] <= 1024 && given[1] >= 1 && given[2] >= 1, "slabs are out of range");
    require(int64_t{given[0]} * given[1] <= arena, "slabs lie outside the arena");
    count_ = given[0];
    floats_ = given[1];
    rows_ = given[2];
  }

  bool cut() const { return rows_ < kAll; }
  int count() const { return count_; }
  int64_t floats() const { return floats_; }  // of a slab
  // An image's first row in a slab, and how many of its `height` rows there are.
  int64_t begin(int slab) const { return int64_t{slab} * rows_; }
  int height(int slab, int height) const { return static_cast<int>(std::clamp<int64_t>(height - begin(slab), 0, rows_)); }
  int64_t most_rows(int height) const { return std::min<int64_t>(height, rows_); }
  // The slab that holds a row, and where slab s begins in the arena.
  int of(int64_t row) const { return std::min(static_cast<int>(static_cast<uint32_t>(row) / static_cast<uint32_t>(rows_)), count_ - 1); }
  int64_t at(int slab) const { return slab * floats_; }

  // Every row of an image lies in a slab.
  void require_holds(int64_t height) const { require(!cut() || height <= int64_t{count_} * rows_, "slabs hold fewer rows than an image has"); }

 private:
  static constexpr int kAll = 1 << 30;
  int count_ = 1, rows_ = kAll;
  int64_t floats_;
};

// The pixels of every slab: see inside_bits.
inline std::vector<std::vector<uint16_t>> inside_slabs(const std::vector<int>& grid, const Slabs& slabs) {
  std::vector<std::vector<uint16_t>> inside;
  require(grid.size() == 5, "a grid is [batch, stride, pitch, height, width]");
  require(!slabs.cut() || grid[0] == 1, "slabs are for a batch of one image");
  slabs.require_holds(grid[3]);
  for (int s = 0; s < slabs.count(); s++) {
    std::vector<int> part = grid;
    part[3] = slabs.height(s, grid[3]);
    inside.push_back(part[3] == 0 && s > 0 ? std::vector<uint16_t>() : inside_bits(part, slabs.floats()));
  }
  return inside;
}

}  // namespace openwork
