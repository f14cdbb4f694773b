// From floats to quads and back.

namespace {

using openwork::kQuad;

void quantize(const openwork::Quantize& p) {
  const vec inverse = splat(p.inverse), lo = splat(p.lo), hi = splat(p.hi);
  if (p.x[kQuad - 1]) {  // all four
    const ByteRange range(p.lo, p.hi);
    const float *a = p.x[0], *b = p.x[1], *c = p.x[2], *d = p.x[3];
    float* const y = p.y;
    const uint16_t* const inside = p.inside;
    const int64_t end = p.q + p.n;
    for (int64_t at = p.q; at < end; at += kLanes) {
      const ivec quads = rounded_quads(load(a + at) * inverse, load(b + at) * inverse, load(c + at) * inverse, load(d + at) * inverse, range);
      store_quads(y + at, keep_quads(quads, pixels(inside, at)));
    }
    return;
  }
  for (int64_t at = p.q; at < p.q + p.n; at += kLanes) {
    ivec k[kQuad];
    for (int c = 0; c < kQuad; c++) k[c] = p.x[c] ? rounded(load(p.x[c] + at) * inverse, lo, hi) : ivec{};
    store_quads(p.y + at, keep_quads(packed(k[0], k[1], k[2], k[3]), pixels(p.inside, at)));
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
