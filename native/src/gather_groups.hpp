// Which weights the groups of gather-scatter sparsity take (src/openwork/constraints/gather_scatter.py says what they are).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <queue>
#include <span>
#include <utility>
#include <vector>

namespace openwork {

// Finds the groups of bundles of rows, those of a bundle one after the other. A group takes a weight of each bank and at
// most `per_row` of a row, the largest that is left first, of equal ones that of the lowest list.
template <typename T>
class Groups {
 public:
  // `ranked`: magnitudes [bundles, rows * banks, ranks], those of a list (a row's in a bank) from the largest on.
  Groups(const T* ranked, int64_t bundles, int64_t lists, int64_t ranks, int64_t banks, int64_t per_row)
      : ranked_(ranked), lists_(lists), ranks_(ranks), banks_(banks), per_row_(per_row), rank_(bundles * lists), heads_(bundles * lists),
        picks_(bundles * banks), offers_(lists), left_(lists / banks), best_(lists / banks) {
    for (int64_t list = 0; list < bundles * lists; list++) heads_[list] = ranks ? ranked[list * ranks] : kNone;
  }

  // The next group of a bundle: the lists that it takes a weight of, which are none in the end, and the sum of its squares.
  std::pair<std::span<const int32_t>, double> next(int64_t bundle) {
    T* const heads = &heads_[bundle * lists_];
    int32_t *const picks = &picks_[bundle * banks_], rows = static_cast<int32_t>(best_.size());
    std::copy(heads, heads + lists_, offers_.begin());
    std::fill(left_.begin(), left_.end(), per_row_);
    for (int32_t row = 0; row < rows; row++) look_at(row);
    int32_t count = 0;
    double sum = 0;
    for (; count < banks_; count++) {
      int32_t row = 0;
      for (int32_t other = 1; other < rows; other++)
        if (best_[other].value > best_[row].value) row = other;
      const auto [value, bank] = best_[row];
      if (value < 0) break;
      sum += static_cast<double>(value) * value;
      picks[count] = row * static_cast<int32_t>(banks_) + bank;
      if (--left_[row] == 0) {
        std::fill_n(&offers_[row * banks_], banks_, kNone);
        best_[row].value = kNone;
      }
      for (int32_t other = 0; other < rows; other++) {
        offers_[other * banks_ + bank] = kNone;
        if (best_[other].bank == bank) look_at(other);
      }
    }
    for (int32_t i = 0; i < count; i++) {
      const int64_t list = bundle * lists_ + picks[i];
      heads[picks[i]] = ++rank_[list] < ranks_ ? ranked_[list * ranks_ + rank_[list]] : kNone;
    }
    return {{picks, static_cast<size_t>(count)}, sum};
  }

  // What `next` found last of a bundle, `count` lists.
  std::span<const int32_t> last(int64_t bundle, size_t count) const { return {&picks_[bundle * banks_], count}; }

 private:
  static constexpr T kNone = -1;  // less than every magnitude: what nobody takes

  struct Offer {
    T value;
    int32_t bank;
  };

  // Finds the largest weight that a row still offers.
  void look_at(int32_t row) {
    const T* const offers = &offers_[row * banks_];
    Offer best{offers[0], 0};
    for (int32_t bank = 1; bank < banks_; bank++)
      if (offers[bank] > best.value) best = {offers[bank], bank};
    best_[row] = best;
  }

  const T* ranked_;
  int64_t lists_, ranks_, banks_, per_row_;
  std::vector<int32_t> rank_;   // of each list, how many of its weights groups have taken
  std::vector<T> heads_;        // of each list, the largest of the others
  std::vector<int32_t> picks_;  // of each bundle, its last group
  std::vector<T> offers_;       // of the bundle at work, the heads of banks and rows that are free
  std::vector<int64_t> left_;   // of each row, how many weights the group may still take
  std::vector<Offer> best_;     // of each row
};

// Of the groups of all bundles the `budget` best: adds to `taken` [bundles, lists] how many weights they take of each list.
// A group counts no more than the one before it in its bundle, so that the best of all are the first ones of each bundle;
// of equal ones those of the lowest bundle come first.
template <typename T>
void take_groups(const T* ranked, int64_t bundles, int64_t lists, int64_t ranks, int64_t banks, int64_t per_row, int64_t budget, int64_t* taken) {
  struct Found {
    double sum;
    int64_t bundle;
    size_t count;
    bool operator<(const Found& other) const { return sum != other.sum ? sum < other.sum : bundle > other.bundle; }
  };
  Groups<T> groups(ranked, bundles, lists, ranks, banks, per_row);
  std::priority_queue<Found> best;
  const auto offer = [&](int64_t bundle, double most) {
    const auto [picks, sum] = groups.next(bundle);
    if (!picks.empty()) best.push({std::min(sum, most), bundle, picks.size()});
  };
  for (int64_t bundle = 0; bundle < bundles; bundle++) offer(bundle, std::numeric_limits<double>::infinity());
  for (; budget > 0 && !best.empty(); budget--) {
    const Found found = best.top();
    best.pop();
    for (const int32_t list : groups.last(found.bundle, found.count)) taken[found.bundle * lists + list]++;
    offer(found.bundle, found.sum);
  }
}

}  // namespace openwork
