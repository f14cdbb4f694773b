// AVX-512 with VNNI and AMX: the kernels of avx512vnni, but those on quads in blocks of 16 rows multiply matrices in registers.
#define OW_LANES 16
#define OW_ACCUMULATORS 24
#include <utility>

#include "kernels.hpp"
#include "pixels.hpp"
#include "quad_vec.hpp"

#include "quad_finish.inl"
#include "quad_tiles_kernels.inl"

namespace openwork {

const Kernels& avx512amx_kernels() {
  static const Kernels kernels = with_quads(avx512vnni_kernels(), "avx512amx", fill_quad_tiles);
  return kernels;
}

}  // namespace openwork
