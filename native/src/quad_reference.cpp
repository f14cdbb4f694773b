// The naive reference of every kernel on quads: one scalar loop each, as in kernels_reference.cpp, but all results are exact.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "reference.hpp"

namespace openwork {
namespace {

uint32_t quad_at(const float* x) {
  uint32_t quad;
  std::memcpy(&quad, x, sizeof quad);
  return quad;
}

void put_quad(float* y, uint32_t quad) { std::memcpy(y, &quad, sizeof quad); }

int32_t channel(uint32_t quad, int c, bool is_signed) {
  const uint32_t byte = quad >> (8 * c) & 255;
  return is_signed ? static_cast<int8_t>(byte) : static_cast<int32_t>(byte);
}

void quantize(const Quantize& p) {
  for (int64_t at = p.q; at < p.q + p.n; at++) {
    uint32_t quad = 0;
    for (int c = 0; c < kQuad; c++)
      if (p.x[c] && is_pixel(p.inside, at)) quad |= (static_cast<uint32_t>(rounded(p.x[c][at] * p.inverse, p.lo, p.hi)) & 255) << (8 * c);
    put_quad(p.y + at, quad);
  }
}

float largest(const float* x, int64_t n) {
  float found = 0;
  for (int64_t i = 0; i < n; i++) {
    if (std::isnan(x[i])) return x[i];
    found = std::max(found, std::fabs(x[i]));
  }
  return found;
}

void quantize_tokens(const QuantizeTokens& t, int64_t unit_begin, int64_t unit_end) {
  std::vector<float> x(static_cast<size_t>(t.channels));
  for (int64_t q = unit_begin * kUnit; q < unit_end * kUnit; q++) {
    for (int c = 0; c < t.channels; c++) x[static_cast<size_t>(c)] = t.arena[t.x[c] + q];
    const float scale = token_scale(largest(x.data(), t.channels), t.most), inverse = 1 / scale;
    const bool pixel = is_pixel(t.inside, q);
    t.arena_out[t.scale + q] = pixel ? scale : 0.0f;
    uint32_t quad = 0;
    for (int c = 0; c < t.channels; c++) {
      const int32_t k = pixel ? rounded(x[static_cast<size_t>(c)] * inverse, -t.most, t.most) : 0;
      if (t.y) t.arena_out[t.y[c] + q] = pixel ? static_cast<float>(k) * scale : 0.0f;
      quad |= (static_cast<uint32_t>(k) & 255) << (8 * (c % kQuad));
      if (c % kQuad < kQuad - 1 && c + 1 < t.channels) continue;
      if (t.quads) put_quad(t.arena_out + t.quads[c / kQuad] + q, quad);
      quad = 0;
    }
  }
}

// Blocks of mb rows; a tile is nv vectors wide. Not copied into the 60 functions that call it.
[[gnu::noinline]] void quad_taps(const QuadTaps& t, int64_t q, int mb, int nv, int block_begin, int block_end) {
  for (int row = block_begin * mb; row < block_end * mb; row++)
    for (int64_t at = q; at < q + int64_t{nv} * kUnit; at++) {
      uint32_t sum = static_cast<uint32_t>(t.start[row]);  // wraps around
      for (int32_t k = t.begin[row / mb]; k < t.end[row / mb]; k++) {
        const int8_t* w = t.value + quad_weight(mb, k, row % mb) * kQuad;
        const uint32_t x = quad_at(t.arena + t.offset[t.list[row / mb] + k] + at);
        for (int c = 0; c < kQuad; c++) sum += static_cast<uint32_t>(w[c] * channel(x, c, t.is_signed));
      }
      const float total = static_cast<float>(static_cast<int32_t>(sum));
      float y = std::fma(t.token ? total * t.token[at] : total, t.scale[row], t.bias[row]);
      if (t.residual_kind == Residual::floats)
        y = std::fma(t.arena[t.residual[row] + at], t.residual_scale, y);
      else if (t.residual_kind != Residual::none)
        y = std::fma(static_cast<float>(channel(quad_at(t.arena + t.residual[row / kQuad] + at), row % kQuad, t.residual_kind == Residual::signed_quads)), t.residual_scale, y);
      if (!t.quads_out) {
        t.arena_out[t.out[row] + at] = is_pixel(t.inside, at) ? clamp(y, t.lo, t.hi) : 0.0f;
        continue;
      }
      uint32_t byte = static_cast<uint32_t>(rounded(y, t.lo, t.hi)) & 255;
      if (!is_pixel(t.inside, at)) byte = 0;
      float* const out = t.arena_out + t.out[row / kQuad] + at;
      const int shift = row % kQuad * 8;
      put_quad(out, ((row % kQuad ? quad_at(out) : 0) & ~(255u << shift)) | byte << shift);
    }
}

template <int MB, int... NV>
void fill_quad_taps(QuadTapsKernel* row, std::integer_sequence<int, NV...>) {
  ((row[NV] = [](const QuadTaps& t, int64_t q, int begin, int end) { quad_taps(t, q, MB, NV + 1, begin, end); }), ...);
}

template <bool SIGNED>
void dequantize(const Dequantize& p) {
  for (int64_t at = p.q; at < p.q + p.n; at++)
    for (int c = 0; c < kQuad; c++)
      if (p.y[c]) p.y[c][at] = is_pixel(p.inside, at) ? static_cast<float>(channel(quad_at(p.x + at), c, SIGNED)) * p.scale : 0.0f;
}

template <bool SIGNED_A, bool SIGNED_B>
void quad_sum(const QuadSum& p) {
  for (int64_t i = 0; i < p.n; i++) {
    uint32_t quad = 0;
    for (int c = 0; c < kQuad; c++) {
      const float a = static_cast<float>(channel(quad_at(p.a + i), c, SIGNED_A)) * p.scale_a;
      const float b = static_cast<float>(channel(quad_at(p.b + i), c, SIGNED_B));
      quad |= (static_cast<uint32_t>(rounded(std::fma(b, p.scale_b, a), p.lo, p.hi)) & 255) << (8 * c);
    }
    put_quad(p.y + i, !p.inside || is_pixel(p.inside, p.q + i) ? quad : 0);
  }
}

void quad_table(const QuadTable& p) {
  for (int64_t i = 0; i < p.n; i++) {
    uint32_t quad = 0;
    for (int c = 0; c < kQuad; c++) quad |= uint32_t{p.table[channel(quad_at(p.x + i), c, false)]} << (8 * c);
    put_quad(p.y + i, !p.inside || is_pixel(p.inside, p.q + i) ? quad : 0);
  }
}

template <bool SIGNED>
void quad_depthwise(const QuadDepthwise& of) {
  const DepthwiseImages& d = of.images;
  const int groups = tap_groups(d.kw);
  for (int p = 0; p < d.planes; p++)
    for (int i = 0; i < d.out_h; i++)
      for (int j = 0; j < d.out_w; j++) {
        uint32_t quad = 0;
        for (int c = 0; c < kQuad; c++) {
          int32_t sum = of.start[p * kQuad + c];
          for (int di = 0; di < d.kh; di++)
            for (int g = 0; g < groups; g++)
              for (int t = 0; t < 4; t++) {
                const int32_t weight = channel(static_cast<uint32_t>(of.weight[((p * d.kh + di) * groups + g) * kQuad + c]), t, true);
                const int64_t row = d.row[i * d.stride + di], column = int64_t{j} * d.stride + 4 * g + t - d.before;
                if (row != DepthwiseImages::kNoRow && column >= 0 && column < d.w) sum += weight * channel(quad_at(d.x + d.x_plane[p] + row + column), c, SIGNED);
              }
          const float y = std::fma(static_cast<float>(sum), of.scale[p * kQuad + c], of.bias[p * kQuad + c]);
          quad |= (static_cast<uint32_t>(rounded(y, of.lo, of.hi)) & 255) << (8 * c);
        }
        put_quad(d.y + d.y_plane[p] + i * d.y_pitch + j, quad);
      }
}

template <bool SIGNED>
void quad_max_pool(const Window& p) {
  for (int oy = 0; oy < p.out_h; oy++)
    for (int ox = 0; ox < p.out_w; ox++) {
      uint32_t quad = 0;
      for (int c = 0; c < kQuad; c++) {
        int32_t best = SIGNED ? -128 : 0;
        for (int ky = 0; ky < p.kh; ky++)
          for (int kx = 0; kx < p.kw; kx++) {
            const int y = oy * p.sh - p.ph + ky * p.dh, x = ox * p.sw - p.pw + kx * p.dw;
            if (y >= 0 && y < p.h && x >= 0 && x < p.w) best = std::max(best, channel(quad_at(p.x + y * p.pitch + x), c, SIGNED));
          }
        quad |= (static_cast<uint32_t>(best) & 255) << (8 * c);
      }
      put_quad(p.y + oy * p.out_pitch + ox, quad);
    }
}

template <bool SIGNED>
void quad_total(const float* x, int64_t n, int32_t* totals) {
  for (int64_t i = 0; i < n; i++)
    for (int c = 0; c < kQuad; c++) totals[c] += channel(quad_at(x + i), c, SIGNED);
}

template <bool SIGNED>
void quantize_row(const QuantizeRow& q) {
  for (int64_t i = 0; i < q.n; i += kQuad) {
    uint32_t quad = 0;
    for (int c = 0; c < kQuad && i + c < q.n; c++) quad |= (static_cast<uint32_t>(rounded(q.x[i + c] * q.inverse, q.lo, q.hi)) & 255) << (8 * c);
    q.y[i / kQuad] = static_cast<int32_t>(quad);
  }
}

void quad_rows(const QuadRows& r, int64_t width, int64_t sample, int64_t samples, int panel_begin, int panel_end) {
  for (int64_t n = sample; n < sample + samples; n++)
    for (int64_t o = panel_begin * width; o < panel_end * width; o++) {
      const int64_t p = o / width;
      uint32_t sum = static_cast<uint32_t>(r.sum[o]);  // wraps around
      for (int64_t k = r.start[p]; k < r.start[p + 1]; k++) {
        const int64_t column = r.first[p] + k - r.start[p];
        const int64_t number = r.short_index ? r.short_index[column] : r.index ? r.index[column] : column;
        const uint32_t x = static_cast<uint32_t>(r.x[n * r.x_stride + number]), w = static_cast<uint32_t>(r.value[k * width + o % width]);
        for (int c = 0; c < kQuad; c++) sum += static_cast<uint32_t>(channel(w, c, true) * channel(x, c, r.is_signed));
      }
      r.y[n * r.y_stride + o] = clamp(std::fma(static_cast<float>(static_cast<int32_t>(sum)) * r.token[n], r.scale[o], r.bias[o]), r.lo, r.hi);
    }
}

template <int WIDTH, int... S>
void fill_quad_rows(QuadRowsKernel* row, std::integer_sequence<int, S...>) {
  ((row[S] = [](const QuadRows& r, int64_t sample, int begin, int end) { quad_rows(r, WIDTH, sample, S + 1, begin, end); }), ...);
}

}  // namespace

void fill_reference(QuadKernels& k) {
  fill_quad_taps<1>(k.taps[0], std::make_integer_sequence<int, kMaxQuadVectors>());
  fill_quad_taps<2>(k.taps[1], std::make_integer_sequence<int, kMaxQuadVectors>());
  fill_quad_taps<4>(k.taps[2], std::make_integer_sequence<int, kMaxQuadVectors>());
  fill_quad_taps<8>(k.taps[3], std::make_integer_sequence<int, kMaxQuadVectors>());
  fill_quad_taps<16>(k.taps[4], std::make_integer_sequence<int, kMaxQuadVectors>());
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
  k.max_pool[0] = quad_max_pool<false>;
  k.max_pool[1] = quad_max_pool<true>;
  k.total[0] = quad_total<false>;
  k.total[1] = quad_total<true>;
  k.largest = largest;
  k.quantize_row[0] = quantize_row<false>;
  k.quantize_row[1] = quantize_row<true>;
  constexpr auto samples = std::make_integer_sequence<int, kMaxQuadSamples>();
  fill_quad_rows<1>(k.rows[0], samples);
  fill_quad_rows<2>(k.rows[1], samples);
  fill_quad_rows<4>(k.rows[2], samples);
  fill_quad_rows<8>(k.rows[3], samples);
  fill_quad_rows<16>(k.rows[4], samples);
}

}  // namespace openwork
