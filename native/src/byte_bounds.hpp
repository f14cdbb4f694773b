// Bounds of 8-bit results.
#pragma once

#include <cmath>

#include "step.hpp"

namespace openwork {

// What is wrong with bounds of values that are rounded by the largest of their token.
constexpr const char* kSymmetric = "tokens with scales of their own need bounds -k to k";

// Two fields: whole numbers, both of a signed or both of an unsigned byte.
struct ByteBounds {
  explicit ByteBounds(const Fields& f, const char* least = "lo", const char* most = "hi") : lo(f.number(least)), hi(f.number(most)) {
    require(std::nearbyint(lo) == lo && std::nearbyint(hi) == hi, "bounds of bytes must be whole numbers");
    require((lo >= 0 && hi <= 255) || (lo >= -128 && hi <= 127), "bounds of bytes must be 0 to 255 or -128 to 127");
    require(lo <= hi, "bounds of bytes must not cross");
  }
  float lo, hi;
};

}  // namespace openwork
