// Which lanes of a vector of positions are pixels.
#pragma once

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using openwork::kUnit;

constexpr uint32_t kAllLanes = (1u << kLanes) - 1;

// Bit i: position at + i is a pixel; `at` is a whole number of vectors.
inline uint32_t vector_pixels(const uint16_t* inside, int64_t at) {
  const auto place = static_cast<uint64_t>(at);
  return static_cast<uint32_t>(inside[place / kUnit]) >> place % kUnit & kAllLanes;
}

// Bit i < n: position at + i is a pixel.
inline uint32_t pixels(const uint16_t* inside, int64_t at, int64_t n = kLanes) {
  const int64_t skip = at % kUnit;
  uint32_t bits = static_cast<uint32_t>(inside[at / kUnit]) >> skip;
  if (skip + n > kUnit) bits |= static_cast<uint32_t>(inside[at / kUnit + 1]) << (kUnit - skip);
  return bits & kAllLanes;
}

}  // namespace
