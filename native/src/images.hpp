// Stacks of images, and steps that work on them plane by plane.
#pragma once

#include <algorithm>

#include "step.hpp"

namespace openwork {

// An image stack in the arena (buffer -1) or in an external buffer: plane c of sample n begins at offset[c] + n * stride.
struct View {
  explicit View(const Fields& f) : buffer(f.small("buffer")), pitch(f.integer("pitch")), stride(f.integer("stride")), offset(f.positions("planes")) {}

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
    require(std::ranges::find(limits.inputs, buffer) == limits.inputs.end(), "a step writes into an input");
  }

  int64_t size(const Limits& limits) const { return buffer < 0 ? limits.arena : limits.externals[static_cast<size_t>(buffer)]; }

  int buffer;
  int64_t pitch, stride;
  std::vector<int32_t> offset;
};

// Planes are cut evenly; a few chunks for each thread let a delayed thread be helped out.
inline int plane_chunks(size_t planes, int threads) {
  return threads == 1 ? 1 : static_cast<int>(std::min<size_t>(planes, static_cast<size_t>(threads) * 2));
}

class PlaneStep : public Step {
 public:
  PlaneStep(size_t planes, int threads) : planes_(planes), chunks_(plane_chunks(planes, threads)) {}
  int chunks() const final { return chunks_; }
  void run(const Kernels& kernels, const Context& context, int chunk) const final {
    const size_t parts = static_cast<size_t>(chunks_), part = static_cast<size_t>(chunk);
    for (size_t c = planes_ * part / parts; c < planes_ * (part + 1) / parts; c++) run_plane(kernels, context, c);
  }

 protected:
  virtual void run_plane(const Kernels& kernels, const Context& context, size_t channel) const = 0;

 private:
  size_t planes_;
  int chunks_;
};

}  // namespace openwork
