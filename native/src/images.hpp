// Stacks of images, and steps that work on them plane by plane.
#pragma once

#include <algorithm>

#include "slabs.hpp"

namespace openwork {

// An image stack in the arena (buffer -1) or in an external buffer: plane c of sample n begins at offset[c] + n * stride. In
// the arena it may be cut into slabs, which steps take into account that say so.
struct View {
  View(const Fields& f, const Limits& limits)
      : buffer(f.small("buffer")), pitch(f.integer("pitch")), stride(f.integer("stride")), offset(f.positions("planes")), slabs(f, limits.arena) {
    require(buffer == -1 || !slabs.cut(), "only planes in the arena are cut into slabs");
  }

  float* plane(const Context& context, size_t channel, int64_t sample) const {
    float* base = buffer < 0 ? context.arena : context.externals[buffer];
    return base + offset[channel] + sample * stride;
  }

  // Rows rows of columns floats of every plane lie inside the buffer.
  void check(const Limits& limits, int64_t batch, int64_t rows, int64_t columns, size_t channel) const {
    const int64_t reach = (batch - 1) * stride + (rows - 1) * pitch + columns;
    require(offset[channel] >= 0 && offset[channel] + reach <= size(limits), "a plane lies outside its buffer");
  }

  void check_head(const Limits& limits) const {
    require(buffer >= -1 && buffer < static_cast<int>(limits.externals.size()), "a view names an unknown buffer");
    require_size(pitch, 0, "a view's pitch is out of range");
    require_size(stride, 0, "a view's stride is out of range");
    require(!offset.empty(), "a view needs at least one plane");
  }

  // The same for a view that the step writes.
  void check_target(const Limits& limits) const {
    check_head(limits);
    require_writable(buffer, limits);
  }

  // Rows [begin, end) of every slab, counted from its own first one, lie inside the slab or the buffer.
  void check_rows(const Limits& limits, int64_t batch, int64_t begin, int64_t end, int64_t columns, size_t channel) const {
    require(offset[channel] + begin * pitch >= 0 && (batch - 1) * stride + (end - 1) * pitch + columns <= size(limits) - offset[channel], "a plane lies outside its buffer");
  }

  // A row of an image, in the slab that holds it; its first one lies at row 0 of that slab.
  float* row(const Context& context, size_t channel, int64_t sample, int64_t row) const {
    const int slab = slabs.of(row);
    return plane(context, channel, sample) + slabs.at(slab) + (row - slabs.begin(slab)) * pitch;
  }

  // How many rows from this one on, `step` apart, lie in its slab.
  int64_t rows_left(int64_t row, int64_t step) const {
    const int slab = slabs.of(row);
    return slab + 1 == slabs.count() ? kMaxSize : (slabs.begin(slab + 1) - row + step - 1) / step;
  }

  int64_t size(const Limits& limits) const { return buffer < 0 ? slabs.floats() : limits.externals[static_cast<size_t>(buffer)]; }

  int buffer;
  int64_t pitch, stride;
  std::vector<int32_t> offset;
  Slabs slabs;
};

inline void require_whole(const View& view) { require(!view.slabs.cut(), "this step cannot work on slabs"); }

// Planes are cut evenly; a few chunks for each thread let a delayed thread be helped out.
inline int plane_chunks(size_t planes, int threads) {
  return threads == 1 ? 1 : static_cast<int>(std::min<size_t>(planes, static_cast<size_t>(threads) * 2));
}

class PlaneStep : public Step {
 public:
  PlaneStep(size_t planes, int threads) : planes_(planes), chunks_(openwork::plane_chunks(planes, threads)) {}
  int chunks() const override { return chunks_; }

 protected:
  int plane_chunks() const { return chunks_; }

  // The planes [first, second) of a chunk.
  std::pair<size_t, size_t> planes_of(int chunk) const {
    const size_t parts = static_cast<size_t>(chunks_), part = static_cast<size_t>(chunk);
    return {planes_ * part / parts, planes_ * (part + 1) / parts};
  }

  // Calls `work(plane)` for the planes of a chunk.
  template <class Work>
  void for_planes(int chunk, const Work& work) const {
    const auto [first, end] = planes_of(chunk);
    for (size_t c = first; c < end; c++) work(c);
  }

 private:
  size_t planes_;
  int chunks_;
};

}  // namespace openwork
