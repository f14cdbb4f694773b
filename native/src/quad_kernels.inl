// The kernels on quads, written once over quad_vec.hpp. A CPU that has dot products of bytes gets them compiled once more, without
// the kernels on floats: see kernels_avx512vnni.cpp.

#include <algorithm>

#include "kernels.hpp"
#include "pixels.hpp"
#include "quad_vec.hpp"

#include "quantize_kernels.inl"
#include "quad_taps_kernels.inl"

namespace {

void fill_quads(openwork::QuadKernels& k) {
  k.flips[0] = !kUnsignedQuads;
  k.flips[1] = kUnsignedQuads;
  fill_quad_taps(k);
  k.quantize = quantize;
  k.dequantize[0] = dequantize<false>;
  k.dequantize[1] = dequantize<true>;
}

}  // namespace
