// The samples of a step in which lanes run over outputs: where their inputs and outputs lie, and how many go at a time.
#pragma once

#include <algorithm>

#include "activation.hpp"
#include "kernels.hpp"
#include "step.hpp"

namespace openwork {

struct Samples {
  int64_t batch, x, x_stride, y, y_stride;
  int64_t at_once;  // 1 to kMaxSamples, and no more than there are

  explicit Samples(const Fields& f)
      : batch(f.integer("batch")), x(f.integer("x")), x_stride(f.integer("x_stride")), y(f.integer("y")), y_stride(f.integer("y_stride")), at_once(f.small("samples")) {
    require(!f.has_array("slope"), "rows have no slope for each output");
    require_size(batch, 1, "batch must be at least 1");
    require_size(x, 0, "the input lies outside the arena");
    require_size(y, 0, "the output lies outside the arena");
    require_size(x_stride, 0, "the input's stride is out of range");
    require_size(y_stride, 0, "the output's stride is out of range");
    require(at_once >= 1 && at_once <= kMaxSamples, "samples in a block must be 1 to 6");
    at_once = std::min(at_once, batch);
  }

  void require_reads(int64_t features, const Limits& limits) const {
    require_size(features, 1, "features must be at least 1");
    require(x + (batch - 1) * x_stride + features <= limits.arena, "the input lies outside the arena");
  }

  void require_writes(int64_t outputs, const Limits& limits) const {
    require(outputs >= 1, "outputs must be at least 1");
    require(y + (batch - 1) * y_stride + outputs <= limits.arena, "the output lies outside the arena");
  }

  // Runs `kernel` (samples at a time, first sample, panels from, to) on panels [begin, end) of `width` outputs for all samples, and the
  // activation after it. With many samples the weights of a few outputs, `unit` panels, are used again and again while they are in the cache.
  template <class Run>
  void run_panels(const Kernels& kernels, const Activation& act, float* arena, int64_t width, int begin, int end, int unit, const Run& kernel) const {
    const int each = batch > at_once ? unit : std::max(1, end - begin);
    for (int p = begin; p < end; p += each) {
      const int next = std::min(p + each, end);
      for (int64_t n = 0; n < batch; n += at_once) {
        const int64_t last = std::min(n + at_once, batch);
        kernel(last - n, n, p, next);
        for (int64_t s = n; act && s < last; s++) {
          float* const out = arena + y + s * y_stride + p * width;
          act.apply(kernels, out, out, (next - p) * width, 0);
        }
      }
    }
  }
};

}  // namespace openwork
