// SHA-256 (FIPS 180-4): finds damage in artifacts, at the speed of memory where the CPU has instructions for it.
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace openwork {

using Hash = std::array<uint8_t, 32>;

class Sha256 {
 public:
  void update(std::span<const uint8_t> bytes);
  Hash finish();

 private:
  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> block_;  // bytes that do not fill a block yet
  uint64_t size_ = 0;              // bytes so far
};

Hash sha256(std::span<const uint8_t> bytes);

// For tests: whether the CPU's instructions are used; false goes without them from now on.
bool sha256_use_instructions(bool use);

}  // namespace openwork
