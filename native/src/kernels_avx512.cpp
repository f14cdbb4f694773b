// AVX-512: 32 registers of 16 floats.
#define OW_LANES 16
#define OW_ACCUMULATORS 24
#include "kernels.inl"

namespace openwork {

const Kernels& avx512_kernels() {
  static const Kernels kernels = table("avx512");
  return kernels;
}

}  // namespace openwork
