// AVX2 with FMA: 16 registers of 8 floats.
#define OW_LANES 8
#define OW_ACCUMULATORS 12
#include "kernels.inl"

namespace openwork {

const Kernels& avx2_kernels() {
  static const Kernels kernels = table("avx2");
  return kernels;
}

}  // namespace openwork
