// A layer of GRU, LSTM or RNN cells over a sequence, in one or both directions.
//
// The input's projection for all time steps is in the arena already. What is left for each time step is the product of the
// recurrent weights and the state, lanes over outputs, and then the gates. A part of the step owns some units: it computes
// all gates of its units and their next state, so that threads meet once a time step.

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "step.hpp"

namespace openwork {
namespace {

constexpr int kGatherRows = 128;    // outputs that must share a list of columns, for a copy of the columns to pay
constexpr int kGatherFloats = 8192;  // on the stack

// A value [time or direction][sample][features] in the arena (buffer -1) or in an external buffer.
struct Place {
  Place(const Fields& f, const Limits& limits, int64_t outer, int64_t batch, int64_t features)
      : buffer(f.small("buffer")), base(f.integer("base")), step(f.integer("step")), sample(f.integer("sample")) {
    require(buffer >= -1 && buffer < static_cast<int>(limits.externals.size()), "a view names an unknown buffer");
    require_size(base, 0, "a value lies outside its buffer");
    require_size(step, 0, "a value's stride is out of range");
    require_size(sample, 0, "a value's stride is out of range");
    const int64_t size = buffer < 0 ? limits.arena : limits.externals[static_cast<size_t>(buffer)];
    require(base + (outer - 1) * step + (batch - 1) * sample + features <= size, "a value lies outside its buffer");
  }

  float* at(const Context& context, int64_t outer, int64_t n) const {
    return (buffer < 0 ? context.arena : context.externals[buffer]) + base + outer * step + n * sample;
  }

  int buffer;
  int64_t base, step, sample;
};

class RecurrentStep final : public Step {
 public:
  RecurrentStep(const Fields& f, const Limits& limits)
      : cell_(cell(f.string("cell"))),
        steps_(f.integer("steps")),
        batch_(f.integer("batch")),
        hidden_(f.integer("hidden")),
        directions_(f.integer("directions")),
        width_(f.small("width")),
        samples_(f.small("samples")),
        work_(f.integer("work")),
        units_(f.numbers("units")),
        part_(f.numbers("part")),
        value_(f.aligned_floats("value")),
        bias_(f.floats("bias")),
        rest_(f.floats("rest")) {
    require(width_ == 16 || width_ == 32 || width_ == 64, "outputs in a panel must be 16, 32 or 64");
    require(samples_ >= 1 && samples_ <= kMaxSamples, "samples in a block must be 1 to 6");
    require(steps_ >= 1 && steps_ < (1 << 24), "time steps are out of range");
    require_size(batch_, 1, "batch must be at least 1");
    require(hidden_ >= 1 && hidden_ < (1 << 24), "the hidden size is out of range");
    require(directions_ == 1 || directions_ == 2, "directions must be 1 or 2");
    padded_ = (hidden_ + kUnit - 1) / kUnit * kUnit;
    state_ = directions_ * padded_;
    gated_ = state_ * kGates[static_cast<int>(cell_)];
    require(rest_.size() == static_cast<size_t>(gated_), "the recurrent bias needs one value for each gate of each unit");
    require_size(work_, 0, "the working memory lies outside the arena");
    require(work_ + batch_ * (gated_ + 3 * state_) <= limits.arena, "the working memory lies outside the arena");
    require(f.inner("x").small("buffer") < 0, "the projected input must lie in the arena");
    x_.emplace(f.inner("x"), limits, steps_, batch_, gated_);
    if (f.given("y")) y_.emplace(f.inner("y"), limits, steps_, batch_, directions_ * hidden_);
    for (auto [name, place] : {std::pair{"h0", &h0_}, {"hn", &hn_}, {"c0", &c0_}, {"cn", &cn_}})
      if (f.given(name)) place->emplace(f.inner(name), limits, directions_, batch_, hidden_);
    for (const auto* written : {&y_, &hn_, &cn_})
      if (*written) require_writable((*written)->buffer, limits);
    for (auto [name, values] : {std::pair{"h_start", &h_start_}, {"c_start", &c_start_}})
      if (f.has_array(name)) {
        *values = f.floats(name);
        require(values->size() == static_cast<size_t>(directions_ * batch_ * hidden_), "an initial state needs one value for each unit of each sample");
      }
    read_parts(f);
  }

  int chunks() const override { return static_cast<int>(units_.size()) - 1; }
  int rounds() const override { return apart_ ? 1 : static_cast<int>(steps_) + 1; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const size_t part = static_cast<size_t>(chunk % chunks());
    if (!apart_) return run_round(kernels, context, chunk / chunks(), part);
    for (int64_t round = 0; round <= steps_; round++) run_round(kernels, context, round, part);
  }

  std::string kernel(const Kernels& kernels) const override {
    return std::string(kCells[static_cast<int>(cell_)]) + "_f32_" + std::to_string(width_) + "x" +
           std::to_string(std::min<int64_t>(samples_, batch_)) + "_" + kernels.name;
  }

  // Outputs without a weight keep their bias from step to step.
  void settle(float* arena) const override {
    for (int64_t n = 0; n < batch_; n++) std::copy_n(rest_.data(), gated_, arena + work_ + n * gated_);
  }

 private:
  static Cell cell(const std::string& name) {
    for (int i = 0; i < 4; i++)
      if (name == kCells[i]) return static_cast<Cell>(i);
    throw std::invalid_argument("unknown cell '" + name.substr(0, 40) + "'");
  }

  // Consecutive panels that read the same columns.
  struct Group {
    int first, last;        // panels
    int32_t begin, columns;  // in the list of columns
    bool gathered;
  };

  void read_parts(const Fields& f) {
    const auto panels = f.integers("panels"), start = f.integers("start");
    index_ = f.integers("index");
    place_ = f.integers("place");
    require(panels.size() + 1 == start.size(), "every group of panels needs a list of columns");
    if (!panels.empty() || !index_.empty()) require_starts(start, index_.size());
    for (int32_t i : index_) require(i >= 0 && i < state_, "a column lies outside the state");
    value_start_ = {0};
    for (size_t g = 0; g < panels.size(); g++) {
      const int32_t begin = start[g], columns = start[g + 1] - begin, first = static_cast<int32_t>(first_.size());
      require(panels[g] >= 1 && first + int64_t{panels[g]} <= static_cast<int64_t>(bias_.size()), "a group needs at least one panel, and panels a bias for each output");
      require(value_start_.back() + int64_t{panels[g]} * columns < kMaxSize, "panels hold too many columns");
      bool run = true;
      for (int32_t k = 1; k < columns; k++) run &= index_[static_cast<size_t>(begin + k)] == index_[static_cast<size_t>(begin)] + k;
      const bool gathered = !run && panels[g] * int64_t{width_} >= kGatherRows && columns * std::min<int64_t>(samples_, batch_) <= kGatherFloats;
      groups_.push_back({first, first + panels[g], begin, columns, gathered});
      for (int32_t p = 0; p < panels[g]; p++) {
        value_start_.push_back(value_start_.back() + columns);
        first_.push_back(gathered ? 0 : run && columns ? index_[static_cast<size_t>(begin)] : begin);
        listed_.push_back(!run && !gathered);
      }
    }
    const size_t outputs = first_.size() * static_cast<size_t>(width_);
    require(bias_.size() == outputs && place_.size() == outputs, "panels need one bias and one place for each output");
    require(value_.size() == static_cast<size_t>(value_start_.back()) * static_cast<size_t>(width_), "columns need one value for each output of the panel");
    require(units_.size() >= 2 && units_.size() == part_.size() && units_.front() == 0 && units_.back() == state_, "parts must cover all units");
    require(part_.front() == 0 && part_.back() == static_cast<int>(groups_.size()), "parts must cover all groups of panels");
    apart_ = true;
    for (size_t p = 0; p + 1 < units_.size(); p++) {
      require(units_[p] < units_[p + 1] && units_[p] % kUnit == 0 && part_[p] <= part_[p + 1], "parts must follow each other in whole units of 16");
      apart_ &= units_[p] % padded_ == 0;
    }
    for (size_t p = 0; p + 1 < units_.size(); p++) check_part(p);
    for (size_t p = 0; p < first_.size(); p++) {
      const int32_t* out = &place_[p * static_cast<size_t>(width_)];
      int used = 0;
      bool in_order = true;
      for (; used < width_ && out[used] >= 0; used++) in_order &= out[used] == out[0] + used;
      for (int i = used; i < width_; i++) require(out[i] == -1, "outputs that fill up a panel must come last");
      used_.push_back(used);
      direct_.push_back(in_order && used == width_);
    }
  }

  // A part writes the gates of its own units only; threads would disturb each other. Parts of whole directions read only those.
  void check_part(size_t part) const {
    const int64_t gates = kGates[static_cast<int>(cell_)];
    for (int g = part_[part]; g < part_[part + 1]; g++) {
      const Group& group = groups_[static_cast<size_t>(g)];
      for (int64_t i = int64_t{group.first} * width_; i < int64_t{group.last} * width_; i++) {
        const int64_t out = place_[static_cast<size_t>(i)];
        require(out >= -1 && out < gated_, "an output lies outside the gates");
        const int64_t unit = out / (gates * padded_) * padded_ + out % padded_;
        require(out < 0 || (unit >= units_[part] && unit < units_[part + 1]), "an output belongs to another part's units");
      }
      for (int32_t k = 0; k < group.columns; k++) {
        const int32_t column = index_[static_cast<size_t>(group.begin + k)];
        require(!whole(part) || (column >= units_[part] && column < units_[part + 1]), "a column belongs to the other direction");
      }
    }
  }

  bool whole(size_t part) const { return directions_ > 1 && units_[part] % padded_ == 0 && units_[part + 1] % padded_ == 0 && units_[part + 1] - units_[part] < state_; }

  float* state(const Context& context, int64_t which) const {
    return context.arena + work_ + batch_ * (gated_ + (which & 1) * state_);
  }
  float* cells(const Context& context) const { return context.arena + work_ + batch_ * (gated_ + 2 * state_); }

  // Round 0 puts the initial state where the products read it; round t + 1 is time step t.
  void run_round(const Kernels& kernels, const Context& context, int64_t round, size_t part) const {
    if (round == 0) return begin(context, part);
    multiply(kernels, context, round - 1, part);
    advance(kernels, context, round - 1, part);
  }

  // Calls f(direction, first unit in it, units) for the stretches of a part.
  template <class F>
  void for_directions(size_t part, F f) const {
    for (int64_t d = 0; d < directions_; d++) {
      const int64_t from = std::max<int64_t>(units_[part], d * padded_), to = std::min<int64_t>(units_[part + 1], (d + 1) * padded_);
      if (from < to) f(d, from - d * padded_, to - from);
    }
  }

  // Units behind the last one have no place outside.
  int64_t real(int64_t first, int64_t units) const { return std::clamp<int64_t>(hidden_ - first, 0, units); }

  void begin(const Context& context, size_t part) const {
    const auto fill = [&](const std::optional<Place>& from, const Held<float>& start, float* to) {
      for_directions(part, [&](int64_t d, int64_t first, int64_t units) {
        const int64_t count = from || !start.empty() ? real(first, units) : 0;
        for (int64_t n = 0; n < batch_; n++) {
          float* y = to + n * state_ + d * padded_ + first;
          if (count) std::copy_n((from ? from->at(context, d, n) : start.data() + (d * batch_ + n) * hidden_) + first, count, y);
          std::fill(y + count, y + units, 0.0f);
        }
      });
    };
    fill(h0_, h_start_, state(context, 0));
    if (cell_ == Cell::lstm) fill(c0_, c_start_, cells(context));
  }

  void multiply(const Kernels& kernels, const Context& context, int64_t time, size_t part) const {
    const float* h = state(context, time);
    float* u = context.arena + work_;
    const auto& family = kernels.rows[std::countr_zero(static_cast<unsigned>(width_))];
    const float inf = __builtin_inff();
    alignas(64) float columns[kGatherFloats], sums[kMaxSamples * 64];
    for (int g = part_[part]; g < part_[part + 1]; g++) {
      const Group& group = groups_[static_cast<size_t>(g)];
      for (int64_t n = 0; n < batch_;) {
        const int64_t count = std::min<int64_t>(samples_, batch_ - n);
        if (group.gathered)
          for (int64_t s = 0; s < count; s++) kernels.gather(h + (n + s) * state_, &index_[static_cast<size_t>(group.begin)], columns + s * group.columns, group.columns);
        Rows rows = {h + n * state_, nullptr, state_, 0, nullptr, nullptr, nullptr, nullptr, nullptr, value_.data(), nullptr, -inf, inf, nullptr};
        if (group.gathered) rows.x = columns, rows.x_stride = group.columns;
        for (int p = group.first; p < group.last; p++) {
          const int64_t at = int64_t{p} * width_;
          const int32_t* out = &place_[static_cast<size_t>(at)];
          const bool direct = direct_[static_cast<size_t>(p)];
          rows.start = &value_start_[static_cast<size_t>(p)];
          rows.end = rows.start + 1;
          rows.first = &first_[static_cast<size_t>(p)];
          rows.index = listed_[static_cast<size_t>(p)] ? index_.data() : nullptr;
          rows.bias = bias_.data() + at;
          rows.y = direct ? u + n * gated_ + out[0] : sums;
          rows.y_stride = direct ? gated_ : width_;
          family[count - 1](rows, 0, 0, 1);
          if (direct) continue;
          for (int64_t s = 0; s < count; s++)
            for (int i = 0; i < used_[static_cast<size_t>(p)]; i++) u[(n + s) * gated_ + out[i]] = sums[s * width_ + i];
        }
        n += count;
      }
    }
  }

  void advance(const Kernels& kernels, const Context& context, int64_t time, size_t part) const {
    const auto gates = kernels.gates[static_cast<int>(cell_)];
    const int64_t per_direction = padded_ * kGates[static_cast<int>(cell_)];
    for_directions(part, [&](int64_t d, int64_t first, int64_t units) {
      const int64_t t = d == 0 ? time : steps_ - 1 - time, count = real(first, units);
      for (int64_t n = 0; n < batch_; n++) {
        const int64_t unit = n * state_ + d * padded_ + first;
        float* next = state(context, time + 1) + unit;
        float* c = cells(context) + unit;
        gates({x_->at(context, t, n) + d * per_direction + first, context.arena + work_ + n * gated_ + d * per_direction + first,
               padded_, state(context, time) + unit, next, c, units});
        if (!count) continue;
        if (y_) std::copy_n(next, count, y_->at(context, t, n) + d * hidden_ + first);
        if (hn_ && time + 1 == steps_) std::copy_n(next, count, hn_->at(context, d, n) + first);
        if (cn_ && time + 1 == steps_) std::copy_n(c, count, cn_->at(context, d, n) + first);
      }
    });
  }

  Cell cell_;
  int64_t steps_, batch_, hidden_, directions_;
  int width_, samples_;
  int64_t work_, padded_ = 0, state_ = 0, gated_ = 0;
  std::vector<int> units_, part_;  // [parts + 1]: units, groups
  Held<float> value_, bias_, rest_;
  std::optional<Place> x_, y_, h0_, hn_, c0_, cn_;  // none: not wanted, or zero
  Held<float> h_start_, c_start_;                   // the same initial state in every run
  std::vector<Group> groups_;
  std::vector<int32_t> index_, place_, value_start_, first_;  // the last two by panel, as Rows wants them
  std::vector<int> used_;              // outputs of a panel; the rest fills it up
  std::vector<char> listed_, direct_;  // by panel: columns are in the list; outputs follow each other
  bool apart_ = false;  // no part reads another's state
};

const StepKind kind("recurrent", make<RecurrentStep>);

}  // namespace
}  // namespace openwork
