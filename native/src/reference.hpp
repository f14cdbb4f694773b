// What the files of the naive reference share.
#pragma once

#include "kernels.hpp"

namespace openwork {

inline float clamp(double v, float lo, float hi) {
  float r = static_cast<float>(v);
  if (r < lo) r = lo;
  if (r > hi) r = hi;
  return r;
}

// Whether a position is a pixel; see Taps.
inline bool is_pixel(const uint16_t* inside, int64_t at) { return inside[at / kUnit] >> (at % kUnit) & 1; }

// The kernels on quads: quad_reference.cpp.
void fill_reference(QuadKernels& k);

}  // namespace openwork
