// Steps that treat every position of planes on one grid alike, whatever its neighbours are.
#pragma once

#include <algorithm>

#include "step.hpp"

namespace openwork {

class PositionStep : public Step {
 public:
  // Field "grid": see inside_bits.
  PositionStep(const Fields& f, const Limits& limits, size_t planes)
      : inside_(inside_bits(f.numbers("grid"), limits.arena)), units_(static_cast<int64_t>(planes) * static_cast<int64_t>(inside_.size())) {
    require(planes >= 1, "a step needs at least one plane");
    require(units_ < kMaxSize, "a step has too many positions");
    // A few chunks for each thread let a delayed thread be helped out; a chunk of less than a few kilobytes is not worth it.
    constexpr int64_t kLeast = 64;
    chunks_ = limits.threads == 1 ? 1 : static_cast<int>(std::clamp<int64_t>(units_ / kLeast, 1, int64_t{4} * limits.threads));
  }

  int chunks() const final { return chunks_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const final {
    const int64_t each = static_cast<int64_t>(inside_.size());
    const int64_t end = units_ * (chunk + 1) / chunks_;
    for (int64_t u = units_ * chunk / chunks_; u < end;) {
      const int64_t plane = u / each, stop = std::min(end, (plane + 1) * each);
      run_stretch(kernels, context, static_cast<size_t>(plane), (u - plane * each) * kUnit, (stop - u) * kUnit);
      u = stop;
    }
  }

 protected:
  // Positions [q, q + n) of a plane; both are multiples of kUnit.
  virtual void run_stretch(const Kernels& kernels, const Context& context, size_t plane, int64_t q, int64_t n) const = 0;

  const uint16_t* inside() const { return inside_.data(); }

  // Every plane's positions lie inside the arena.
  void check_planes(const std::vector<int32_t>& planes, const Limits& limits) const {
    require_inside(planes, static_cast<int64_t>(inside_.size()) * kUnit, limits.arena, "a plane lies outside the arena");
  }

 private:
  std::vector<uint16_t> inside_;
  int64_t units_;
  int chunks_;
};

}  // namespace openwork
