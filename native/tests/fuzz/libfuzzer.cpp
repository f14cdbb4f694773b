// What driver.cpp has and libFuzzer lacks: `fuzz overflow`, and at the end how many inputs loaded and ran.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "fuzz.hpp"

extern "C" int LLVMFuzzerInitialize(int* count, char*** arguments) {
  if (*count == 2 && !std::strcmp((*arguments)[1], "overflow")) std::exit(openwork::overflow());
  std::atexit([] {
    std::printf("{\"loaded\": %llu, \"ran\": %llu}\n", static_cast<unsigned long long>(openwork::fuzz_counts.loaded),
                static_cast<unsigned long long>(openwork::fuzz_counts.ran));
  });
  return 0;
}
