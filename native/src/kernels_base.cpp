// Portable baseline: 16 registers of 4 floats, as SSE2 has them.
#define OW_LANES 4
#define OW_ACCUMULATORS 12
#include "kernels.inl"

namespace openwork {

const Kernels& base_kernels() {
  static const Kernels kernels = table("base");
  return kernels;
}

}  // namespace openwork
