// What the parts of the fuzzer share. The functions have libFuzzer's names and meanings, so that it can drive them as well.
#pragma once

#include <cstddef>
#include <cstdint>

namespace openwork {

struct FuzzCounts {
  uint64_t loaded = 0, ran = 0;
};
extern FuzzCounts fuzz_counts;

// Reads beyond an end, to see that it is found.
int overflow();

}  // namespace openwork

extern "C" {
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed);
}
