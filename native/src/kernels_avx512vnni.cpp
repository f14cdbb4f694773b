// AVX-512 with VNNI: the kernels of AVX-512, but those on quads have dot products of bytes.
#define OW_LANES 16
#define OW_ACCUMULATORS 24
#include "quad_kernels.inl"

namespace openwork {

const Kernels& avx512vnni_kernels() {
  static const Kernels kernels = with_quads(avx512_kernels(), "avx512vnni", fill_quads);
  return kernels;
}

}  // namespace openwork
