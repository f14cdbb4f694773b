// What the files of the naive reference share.
#pragma once

#include <cmath>

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

// A whole number within bounds, ties to even; NaN counts as lo.
inline int32_t rounded(float v, float lo, float hi) {
  if (std::isnan(v)) return static_cast<int32_t>(lo);
  return static_cast<int32_t>(std::fmin(std::fmax(std::nearbyint(v), lo), hi));
}

// The kernels on quads: quad_reference.cpp.
void fill_reference(QuadKernels& k);

}  // namespace openwork
