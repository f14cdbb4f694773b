// Which columns of the weight matrix each block of rows walks: compressed lists, or every column where a layer is dense.
#pragma once

#include "step.hpp"

namespace openwork {

struct TapLists {
  int rows;                    // in a block
  std::vector<int32_t> start;  // [blocks + 1], values of block b are start[b] .. start[b + 1]
  std::vector<int32_t> first;  // [blocks], where the block's columns begin in `index`; dense blocks share them
  std::vector<int32_t> index;  // columns

  // `rows` outputs in a block, `outputs` in all. A dense layer stores no lists: with `block_group` b, block b reads columns
  // [group * columns, (group + 1) * columns), else the first `columns`. Lists are of a multiple of `unit` columns: dense ones are filled
  // up with the last.
  TapLists(const Fields& f, int rows, int64_t outputs, int unit = 1) : rows(rows) {
    require(rows >= 1 && outputs % rows == 0, "outputs must fill whole blocks");
    if (f.boolean("dense", false))
      dense(f, outputs / rows, unit);
    else
      compressed(f);
    for (int32_t s : start) require(s % unit == 0, "lists must be filled up to whole tiles");
  }

 private:
  void compressed(const Fields& f) {
    start = f.integers("start");
    index = f.integers("index");
    require_starts(start, index.size());
    first.assign(start.begin(), start.end() - 1);
  }

  void dense(const Fields& f, int64_t blocks, int unit) {
    const int64_t own = f.small("columns"), columns = (own + unit - 1) / unit * unit;
    std::vector<int> group(static_cast<size_t>(blocks), 0);
    if (f.given("block_group")) group = f.numbers("block_group", static_cast<int>(blocks));
    int64_t groups = 1;
    for (int g : group) {
      require(g >= 0, "a dense step's groups are out of range");
      groups = std::max<int64_t>(groups, g + int64_t{1});
    }
    require(blocks >= 1 && own >= 0 && blocks * columns < kMaxSize && groups * columns < kMaxSize, "a dense step's blocks are out of range");
    for (int64_t b = 0; b <= blocks; b++) start.push_back(static_cast<int32_t>(b * columns));
    for (int g : group) first.push_back(static_cast<int32_t>(g * columns));
    require(f.array_size("value") >= static_cast<size_t>(blocks * columns), "a dense step's blocks are out of range");  // before memory is taken
    require(groups <= blocks, "a dense step's groups are out of range");
    for (int64_t g = 0; g < groups; g++)
      for (int64_t c = 0; c < columns; c++) index.push_back(static_cast<int32_t>(g * own + std::min(c, own - 1)));
  }
};

// Cuts blocks into at most `parts` ranges of nearly equal work, so that uneven filters balance; every range but the last is
// whole multiples of `unit` blocks. `start` are the blocks' row pointers.
inline std::vector<int> even_cuts(const std::vector<int32_t>& start, int parts, int unit) {
  const int blocks = static_cast<int>(start.size()) - 1;
  constexpr int64_t kEpilogue = 4;  // a block's bias, clamp and store cost about as much as four columns
  const auto work = [&](int b) { return start[static_cast<size_t>(b)] + kEpilogue * b; };
  std::vector<int> cuts = {0};
  for (int b = unit; b < blocks; b += unit)
    if (work(b) * parts >= work(blocks) * static_cast<int64_t>(cuts.size())) cuts.push_back(b);
  cuts.push_back(blocks);
  return cuts;
}

// Offset of every (channel, kernel position), channel-major: the plane of the position's phase plus its shift.
inline std::vector<int32_t> tap_table(const Fields& f) {
  const auto phases = f.position_lists("planes");
  std::vector<std::pair<size_t, int64_t>> shifts;
  for (const Json& shift : f.list("shifts")) {
    const auto& pair = shift.list("shifts");
    require(pair.size() == 2, "shifts are pairs of phase and positions");
    const int64_t phase = pair[0].integer("shifts"), by = pair[1].integer("shifts");
    require(phase >= 0 && phase < static_cast<int64_t>(phases.size()) && by > -kMaxSize && by < kMaxSize, "a shift names an unknown phase");
    shifts.emplace_back(static_cast<size_t>(phase), by);
  }
  const size_t channels = phases.empty() ? 0 : phases.front().size();
  for (const auto& phase : phases) require(phase.size() == channels, "phases must have as many planes as each other");
  require(static_cast<int64_t>(channels * shifts.size()) < kMaxSize, "the table of taps is too large");
  std::vector<int32_t> table;
  table.reserve(channels * shifts.size());
  for (size_t c = 0; c < channels; c++)
    for (const auto& [phase, by] : shifts) {
      const int64_t offset = phases[phase][c] + by;
      require(offset >= INT32_MIN && offset <= INT32_MAX, "a tap reads outside the arena");
      table.push_back(static_cast<int32_t>(offset));
    }
  return table;
}

// The table's offset of every column in the lists.
inline std::vector<int32_t> tap_offsets(const Fields& f, const TapLists& lists) {
  const std::vector<int32_t> table = tap_table(f);
  std::vector<int32_t> offset;
  offset.reserve(lists.index.size());
  for (int32_t i : lists.index) {
    require(i >= 0 && static_cast<size_t>(i) < table.size(), "a tap's index lies outside its table");
    offset.push_back(table[static_cast<size_t>(i)]);
  }
  return offset;
}

}  // namespace openwork
