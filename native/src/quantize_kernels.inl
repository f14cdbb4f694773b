// From floats to quads and back.

namespace {

using openwork::kQuad;

void quantize(const openwork::Quantize& p) {
  const vec inverse = splat(p.inverse);
  const ByteRange range(p.lo, p.hi);
  const float* x[kQuad];
  uint32_t there = 0;  // bytes of channels that there are
  for (int c = 0; c < kQuad; c++) {
    x[c] = p.x[c] ? p.x[c] : p.x[0];
    there |= p.x[c] ? 0xffu << (8 * c) : 0;
  }
  const ivec kept = splat_quad(static_cast<int32_t>(there));
  float* const y = p.y;
  const uint16_t* const inside = p.inside;
  for (int64_t at = p.q, end = p.q + p.n; at < end; at += kLanes) {
    const ivec quads = rounded_quads(load(x[0] + at) * inverse, load(x[1] + at) * inverse, load(x[2] + at) * inverse, load(x[3] + at) * inverse, range);
    store_quads(y + at, keep_quads(quads & kept, vector_pixels(inside, at)));
  }
}

template <bool FLOATS>
void quantize_tokens(const openwork::QuantizeTokens& t, int64_t unit_begin, int64_t unit_end) {
  constexpr int64_t kUnit = openwork::kUnit;
  const int channels = t.channels;
  const int32_t *const from = t.x, *const to = t.y, *const quads = t.quads;
  const ByteRange range(-t.most, t.most);
  const float most = t.most;
  for (int64_t q = unit_begin * kUnit; q < unit_end * kUnit; q += kLanes) {
    const uint32_t inside = vector_pixels(t.inside, q);
    const float* const x = t.arena + q;
    float* const y = t.arena_out + q;
    const auto value = [&](int c) __attribute__((always_inline)) { return load(x + from[c]); };
    const TokenScale token(largest_magnitude(channels, value), most);
    store(y + t.scale, keep(token.scale, inside));
    for (int c = 0; c < channels; c += kQuad) {
      vec four[kQuad] = {};
      for (int i = 0; i < kQuad && c + i < channels; i++) four[i] = load(x + from[c + i]) * token.inverse;
      if constexpr (FLOATS) {
        for (int i = 0; i < kQuad && c + i < channels; i++) store(y + to[c + i], keep(to_float(rounded(four[i], range.lo, range.hi)) * token.scale, inside));
      } else {
        store_quads(y + quads[c / kQuad], keep_quads(rounded_quads(four[0], four[1], four[2], four[3], range), inside));
      }
    }
  }
}

void quantize_tokens(const openwork::QuantizeTokens& t, int64_t unit_begin, int64_t unit_end) {
  if (t.quads) quantize_tokens<false>(t, unit_begin, unit_end);
  if (t.y) quantize_tokens<true>(t, unit_begin, unit_end);
}

template <bool SIGNED>
void dequantize(const openwork::Dequantize& p) {
  const vec scale = splat(p.scale);
  for (int64_t at = p.q; at < p.q + p.n; at += kLanes) {
    const ivec x = load_quads(p.x + at);
    const uint32_t inside = vector_pixels(p.inside, at);
    for (int c = 0; c < kQuad; c++)
      if (p.y[c]) store(p.y[c] + at, keep(to_float(channel<SIGNED>(x, c)) * scale, inside));
  }
}

}  // namespace
