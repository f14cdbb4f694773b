// AVX2 with VNNI of its own (avx_vnni): the kernels of AVX2 but those on quads.
#define OW_LANES 8
#define OW_ACCUMULATORS 12
#include "quad_kernels.inl"

namespace openwork {

const Kernels& avx2vnni_kernels() {
  static const Kernels kernels = with_quads(avx2_kernels(), "avx2vnni", fill_quads);
  return kernels;
}

}  // namespace openwork
