// A function of bytes as the list of its values.
#pragma once

#include "step.hpp"

namespace openwork {

// Array "table" holds what becomes of every byte, signed ones in the order of their bits; without it, nothing happens.
class ByteTable {
 public:
  explicit ByteTable(const Fields& f) {
    if (!f.has_array("table")) return;
    values_ = f.bytes("table");
    require(values_.size() == 256, "a table holds 256 bytes");
  }

  const uint8_t* values() const { return values_.empty() ? nullptr : values_.data(); }  // [256], or null
  explicit operator bool() const { return !values_.empty(); }

  // y[i] = quads of the table's values for the bytes of x[i], i < n; zero where `inside` has no pixel at q + i. x may be y.
  void apply(const Kernels& kernels, const float* x, float* y, int64_t n, const uint16_t* inside = nullptr, int64_t q = 0) const {
    kernels.quads.table({x, y, n, values_.data(), inside, q});
  }

 private:
  Held<uint8_t> values_;
};

}  // namespace openwork
