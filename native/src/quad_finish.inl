// What becomes of sums of taps of quads: floats or bytes, with residual.

#include <array>

namespace {

using openwork::kQuad;
using openwork::QuadTaps;
using openwork::Residual;

// What a row's sums become floats with.
struct RowScale {
  RowScale(const QuadTaps& t, int64_t row) : scale(splat(t.scale[row])), bias(splat(t.bias[row])) {}
  RowScale() = default;
  vec scale, bias;
};

// Sums of a row, scaled, with bias and residual: floats or quads, of which the row has channel `byte`.
template <Residual RESIDUAL, bool TOKENS>
inline vec scaled(const RowScale& row, vec token, vec residual_scale, vec floats, ivec quads, int byte, ivec sum) {
  const vec y = fused(TOKENS ? to_float(sum) * token : to_float(sum), row.scale, row.bias);
  if constexpr (RESIDUAL == Residual::none) return y;
  if constexpr (RESIDUAL == Residual::floats) return fused(floats, residual_scale, y);
  return fused(to_float(channel<RESIDUAL == Residual::signed_quads>(quads, byte)), residual_scale, y);
}

// Stores `count` rows from `row` on, sums [count][nv], at positions from q on. Whatever does not change from vector to vector is read
// before: stores might lie anywhere, for all that the compiler knows.
template <Residual RESIDUAL, bool TOKENS>
void finish(const QuadTaps& t, int64_t row, int count, int nv, int64_t q, const ivec* sums) {
  constexpr bool kQuads = RESIDUAL == Residual::unsigned_quads || RESIDUAL == Residual::signed_quads;
  const vec residual_scale = splat(t.residual_scale);
  const float* const arena = t.arena + q;
  float* const arena_out = t.arena_out + q;
  const uint16_t* const inside = t.inside;
  const float* const token = TOKENS ? t.token + q : nullptr;
  if (!t.quads_out) {
    const vec lo = splat(t.lo), hi = splat(t.hi);
    for (int m = 0; m < count; m++) {
      const RowScale scale(t, row + m);
      const float* const x = RESIDUAL == Residual::none ? nullptr : arena + t.residual[kQuads ? (row + m) / kQuad : row + m];
      float* const y = arena_out + t.out[row + m];
      for (int v = 0; v < nv; v++) {
        const int64_t at = v * kLanes;
        const vec floats = RESIDUAL == Residual::floats ? load(x + at) : vec{};
        const ivec quads = kQuads ? load_quads(x + at) : ivec{};
        const vec found = scaled<RESIDUAL, TOKENS>(scale, TOKENS ? load(token + at) : vec{}, residual_scale, floats, quads, static_cast<int>((row + m) % kQuad), sums[m * nv + v]);
        store(y + at, keep(clamp(found, lo, hi), vector_pixels(inside, q + at)));
      }
    }
    return;
  }
  const ByteRange range(t.lo, t.hi);
  const bool small = t.small;
  for (int m = 0; m < count; m += kQuad) {
    RowScale scale[kQuad];
    const float* x[kQuad] = {};
#pragma GCC unroll 4
    for (int c = 0; c < kQuad; c++) {
      scale[c] = RowScale(t, row + m + c);
      if constexpr (RESIDUAL == Residual::floats) x[c] = arena + t.residual[row + m + c];
    }
    if constexpr (kQuads) x[0] = arena + t.residual[(row + m) / kQuad];
    float* const y = arena_out + t.out[(row + m) / kQuad];
    for (int v = 0; v < nv; v++) {
      const int64_t at = v * kLanes;
      const ivec quads = kQuads ? load_quads(x[0] + at) : ivec{};
      const vec own = TOKENS ? load(token + at) : vec{};
      vec found[kQuad];
#pragma GCC unroll 4
      for (int c = 0; c < kQuad; c++)
        found[c] = scaled<RESIDUAL, TOKENS>(scale[c], own, residual_scale, RESIDUAL == Residual::floats ? load(x[c] + at) : vec{}, quads, c, sums[(m + c) * nv + v]);
      const ivec bytes = rounded_quads(found[0], found[1], found[2], found[3], range, small);
      store_quads(y + at, keep_quads(bytes, vector_pixels(inside, q + at)));
    }
  }
}

// One for all register blocks: their sums wait in the first cache.
template <bool TOKENS>
constexpr auto kFinish = std::array{finish<Residual::none, TOKENS>, finish<Residual::floats, TOKENS>, finish<Residual::unsigned_quads, TOKENS>, finish<Residual::signed_quads, TOKENS>};

}  // namespace
