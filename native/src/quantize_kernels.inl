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
    store_quads(y + at, keep_quads(quads & kept, pixels(inside, at)));
  }
}

template <bool SIGNED>
void dequantize(const openwork::Dequantize& p) {
  const vec scale = splat(p.scale);
  for (int64_t at = p.q; at < p.q + p.n; at += kLanes) {
    const ivec x = load_quads(p.x + at);
    const uint32_t inside = pixels(p.inside, at);
    for (int c = 0; c < kQuad; c++)
      if (p.y[c]) store(p.y[c] + at, keep(to_float(channel<SIGNED>(x, c)) * scale, inside));
  }
}

}  // namespace
