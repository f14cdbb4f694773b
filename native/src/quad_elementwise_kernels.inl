// Functions of one or two 8-bit values over a stretch of positions. Included by quad_kernels.inl.

namespace {

using openwork::QuadSum;
using openwork::QuadTable;

// y = F(i, vectors of quads at position i of the stretch), the last of which may be short: nothing beyond it is read or written.
template <class F>
inline void for_quads(int64_t n, float* y, const uint16_t* inside, int64_t q, const F& f) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t count = std::min<int64_t>(kLanes, n - i);
    ivec found = f(i, count);
    if (inside) found = keep_quads(found, pixels(inside, q + i, count));
    store_first(y + i, (vec)found, count);
  }
}

template <bool SIGNED_A, bool SIGNED_B>
void quad_sum(const QuadSum& p) {
  const vec scale_a = splat(p.scale_a), scale_b = splat(p.scale_b);
  const ByteRange range(p.lo, p.hi);
  for_quads(p.n, p.y, p.inside, p.q, [&](int64_t i, int64_t count) {
    const ivec a = (ivec)load_first(p.a + i, count), b = (ivec)load_first(p.b + i, count);
    vec y[4];
    for (int c = 0; c < 4; c++) y[c] = fused(to_float(channel<SIGNED_B>(b, c)), scale_b, to_float(channel<SIGNED_A>(a, c)) * scale_a);
    return rounded_quads(y[0], y[1], y[2], y[3], range);
  });
}

void quad_table(const QuadTable& p) {
  for_quads(p.n, p.y, p.inside, p.q, [&](int64_t i, int64_t count) { return looked_up(p.table, (ivec)load_first(p.x + i, count)); });
}

// Adds each channel's bytes at n positions to its total, in 16 bits as long as they hold them.
template <bool SIGNED>
void quad_total(const float* x, int64_t n, int32_t* totals) {
  constexpr int64_t kLong = 256;  // vectors: 257 bytes fit into 16 bits
  uvec sums[4] = {};
  for (int64_t begin = 0; begin < n; begin += kLong * kLanes) {
    const int64_t end = std::min(n, begin + kLong * kLanes);
    uvec16 even = {}, odd = {};
    for (int64_t i = begin; i < end; i += kLanes) {
      const ivec quads = (ivec)load_first(x + i, end - i);
      const uvec16 bytes = (uvec16)(SIGNED ? flipped(quads) : quads);
      even += bytes & 255;
      odd += bytes >> 8;
    }
    sums[0] += (uvec)even & 0xffff;
    sums[1] += (uvec)odd & 0xffff;
    sums[2] += (uvec)even >> 16;
    sums[3] += (uvec)odd >> 16;
  }
  const int64_t lanes = (n + kLanes - 1) / kLanes * kLanes;  // of which each moved a signed byte by 128
  for (int c = 0; c < 4; c++) {
    uint32_t total = 0;
    for (int l = 0; l < kLanes; l++) total += sums[c][l];
    totals[c] += static_cast<int32_t>(total - (SIGNED ? static_cast<uint32_t>(128 * lanes) : 0));
  }
}

}  // namespace
