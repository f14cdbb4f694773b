// NEON, part of every aarch64: 32 registers of 4 floats.
#define OW_LANES 4
#define OW_ACCUMULATORS 24
#include "kernels.inl"

namespace openwork {

const Kernels& neon_kernels() {
  static const Kernels kernels = table("neon");
  return kernels;
}

}  // namespace openwork
