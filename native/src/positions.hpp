// Steps that treat every position of planes on one grid alike, whatever its neighbours are.
#pragma once

#include <algorithm>

#include "slabs.hpp"

namespace openwork {

// Pieces that `units` of positions are cut into by a step that needs all channels of a position at once.
inline int position_parts(size_t units, const Limits& limits) { return static_cast<int>(std::min<size_t>(units, limits.threads == 1 ? 1 : static_cast<size_t>(limits.threads) * 4)); }

class PositionStep : public Step {
 public:
  // Field "grid": see inside_bits; "slabs": see Slabs.
  PositionStep(const Fields& f, const Limits& limits, size_t planes)
      : slabs_(f, limits.arena), inside_(inside_slabs(f.numbers("grid"), slabs_)), planes_(static_cast<int64_t>(planes)) {
    require(planes >= 1, "a step needs at least one plane");
    const int64_t units = planes_ * static_cast<int64_t>(inside_.front().size());  // no slab is higher than the first
    require(units * slabs_.count() < kMaxSize, "a step has too many positions");
    // A few chunks for each thread let a delayed thread be helped out; a chunk of less than a few kilobytes is not worth it.
    constexpr int64_t kLeast = 64;
    const int64_t most = std::max(1, 4 * limits.threads / slabs_.count());
    slab_chunks_ = limits.threads == 1 ? 1 : static_cast<int>(std::clamp<int64_t>(units / kLeast, 1, most));
  }

  int chunks() const final { return slab_chunks_ * slabs_.count(); }

  void run(const Kernels& kernels, const Context& context, int chunk) const final {
    const int slab = chunk / slab_chunks_, part = chunk % slab_chunks_;
    const std::vector<uint16_t>& inside = inside_[static_cast<size_t>(slab)];
    float* const arena = context.arena + slabs_.at(slab);
    const int64_t each = static_cast<int64_t>(inside.size()), units = planes_ * each;
    const int64_t end = units * (part + 1) / slab_chunks_;
    for (int64_t u = units * part / slab_chunks_; u < end;) {
      const int64_t plane = u / each, stop = std::min(end, (plane + 1) * each);
      run_stretch(kernels, arena, static_cast<size_t>(plane), {inside.data(), (u - plane * each) * kUnit, (stop - u) * kUnit});
      u = stop;
    }
  }

 protected:
  // Positions [q, q + n) of a plane, both multiples of kUnit, and which of the plane's positions are pixels.
  struct Stretch {
    const uint16_t* inside;
    int64_t q, n;
  };
  // The planes begin at their offsets from `arena`, where the slab at hand begins.
  virtual void run_stretch(const Kernels& kernels, float* arena, size_t plane, const Stretch& stretch) const = 0;

  int64_t slab_floats() const { return slabs_.floats(); }

  // Every plane's positions lie inside the arena.
  void check_planes(const std::vector<int32_t>& planes) const {
    require_inside(planes, static_cast<int64_t>(inside_.front().size()) * kUnit, slab_floats(), "a plane lies outside the arena");
  }

 private:
  Slabs slabs_;
  std::vector<std::vector<uint16_t>> inside_;  // [slabs][units]
  int64_t planes_;
  int slab_chunks_;
};

}  // namespace openwork
