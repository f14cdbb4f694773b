// Nested sparsity levels: weights that hold several networks, each a part of the one before.
//
// A block stores its taps with those of the sparsest level first, so that every level walks a beginning of them and all share
// their values. What a level adds is where it ends in each block, a bias, and a factor for each row, since batch norm learns
// other averages at each level. Level 0 walks everything.
#pragma once

#include "step.hpp"

namespace openwork {

class Levels {
 public:
  Levels() = default;
  // start: [blocks + 1], where the taps of each block lie; rows: of all blocks together.
  Levels(const Fields& f, const std::vector<int32_t>& start, size_t rows) : count_(f.small("levels", 1)), blocks_(start.size() - 1), rows_(rows) {
    require(count_ >= 1 && count_ <= kMaxLevels, "a step has 1 to 16 levels");
    const size_t more = static_cast<size_t>(count_) - 1;
    if (more == 0) return;
    end_ = f.integers("level_end");
    bias_ = f.floats("level_bias");
    if (f.has_array("level_scale")) scale_ = f.floats("level_scale");
    require(end_.size() == more * blocks_, "levels need one end for each block");
    require(bias_.size() == more * rows_, "levels need one bias for each row");
    require(scale_.empty() || scale_.size() == more * rows_, "levels need one factor for each row, or none");
    for (size_t i = 0; i < end_.size(); i++) {
      const size_t block = i % blocks_;
      const int32_t before = i < blocks_ ? start[block + 1] : end_[i - blocks_];
      require(end_[i] >= start[block] && end_[i] <= before, "a level must be a beginning of the one before");
    }
  }

  int count() const { return count_; }
  // The three of a level above 0.
  const int32_t* end(int level) const { return end_.data() + static_cast<size_t>(level - 1) * blocks_; }
  const float* bias(int level) const { return bias_.data() + static_cast<size_t>(level - 1) * rows_; }
  const float* scale(int level) const { return scale_.empty() ? nullptr : scale_.data() + static_cast<size_t>(level - 1) * rows_; }

 private:
  static constexpr int kMaxLevels = 16;

  int count_ = 1;
  size_t blocks_ = 0, rows_ = 0;
  std::vector<int32_t> end_;
  Held<float> bias_, scale_;
};

}  // namespace openwork
