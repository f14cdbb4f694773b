// NEON with dot products of bytes (asimddp): the kernels of NEON but those on quads.
#define OW_LANES 4
#define OW_ACCUMULATORS 24
#include "quad_kernels.inl"

namespace openwork {

const Kernels& neondot_kernels() {
  static const Kernels kernels = with_quads(neon_kernels(), "neondot", fill_quads);
  return kernels;
}

}  // namespace openwork
