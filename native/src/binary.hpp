// The functions of two numbers that a binary step may apply: the one list of their names.
#pragma once

#include <cstdint>

namespace openwork {

// Formulas, in double: kernels_reference.cpp. Vectorised: binary_kernels.inl.
#define OW_BINARIES(X) X(add) X(sub) X(mul) X(div) X(maximum) X(minimum)

constexpr const char* kBinaries[] = {
#define OW_NAME(name) #name,
    OW_BINARIES(OW_NAME)
#undef OW_NAME
};
constexpr int kBinaryCount = sizeof(kBinaries) / sizeof(kBinaries[0]);

// y[i] = f(a[i], b[i]) for i < n, and zero where position q + i is no pixel (see Taps::inside). y may be a or b.
struct Binary {
  const float* a;
  const float* b;
  float* y;
  int64_t n;
  const uint16_t* inside;
  int64_t q;
};

using BinaryKernel = void (*)(const Binary&);

}  // namespace openwork
