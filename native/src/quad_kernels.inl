// The kernels on quads, written once over quad_vec.hpp. A CPU that has dot products of bytes gets them compiled once more, without
// the kernels on floats: see kernels_avx512vnni.cpp.

#include <algorithm>

#include "kernels.hpp"
#include "pixels.hpp"
#include "quad_vec.hpp"

#include "quad_depthwise_kernels.inl"
#include "quad_elementwise_kernels.inl"
#include "quad_pool_kernels.inl"
#include "quad_rows_kernels.inl"
#include "quantize_kernels.inl"
#include "quad_taps_kernels.inl"

namespace {

void fill_quads(openwork::QuadKernels& k) {
  k.flips[0] = !kUnsignedQuads;
  k.flips[1] = kUnsignedQuads;
  fill_quad_taps(k);
  k.quantize = quantize;
  k.quantize_tokens = quantize_tokens;
  k.dequantize[0] = dequantize<false>;
  k.dequantize[1] = dequantize<true>;
  k.sum[0][0] = quad_sum<false, false>;
  k.sum[0][1] = quad_sum<false, true>;
  k.sum[1][0] = quad_sum<true, false>;
  k.sum[1][1] = quad_sum<true, true>;
  k.table = quad_table;
  k.depthwise[0] = quad_depthwise<false>;
  k.depthwise[1] = quad_depthwise<true>;
  k.max_pool[0] = pool<MaximumBytes<false>>;
  k.max_pool[1] = pool<MaximumBytes<true>>;
  k.total[0] = quad_total<false>;
  k.total[1] = quad_total<true>;
  k.largest = largest_magnitude;
  k.quantize_row[0] = quantize_row<false>;
  k.quantize_row[1] = quantize_row<true>;
  constexpr auto samples = std::make_integer_sequence<int, openwork::kMaxQuadSamples>();
  fill_quad_rows<1>(k.rows[0], samples);
  fill_quad_rows<2>(k.rows[1], samples);
  fill_quad_rows<4>(k.rows[2], samples);
  fill_quad_rows<8>(k.rows[3], samples);
  fill_quad_rows<16>(k.rows[4], samples);
}

}  // namespace
