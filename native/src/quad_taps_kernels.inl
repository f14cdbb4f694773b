// Weighted sums of shifted planes of quads.

#include <array>
#include <utility>

namespace {

using openwork::QuadTaps;
using openwork::Residual;

// The sums of a register block: MB rows that share their taps x NV vectors of positions, as in taps_f32. FLIP: x is of the
// other kind than dot() takes.
template <int MB, int NV, bool FLIP>
__attribute__((always_inline)) inline void quad_sums(const QuadTaps& t, int64_t q, int b, ivec (&sum)[MB][NV]) {
  const int32_t* const start = t.start + static_cast<int64_t>(b) * MB;
#pragma GCC unroll 16
  for (int m = 0; m < MB; m++)
#pragma GCC unroll 16
    for (int v = 0; v < NV; v++) sum[m][v] = splat_quad(start[m]);

  const float* const x_tile = t.arena + q;
  const int8_t* w = t.value + static_cast<int64_t>(t.begin[b]) * MB * kQuad;
  const int32_t* const offset_begin = t.offset + t.list[b] + t.begin[b];
  const int32_t* const offset_end = t.offset + t.list[b] + t.end[b];
  for (const int32_t* offset = offset_begin; offset != offset_end; offset++, w += MB * kQuad) {
    const float* x = x_tile + *offset;
    QuadValues xs[NV];
#pragma GCC unroll 16
    for (int v = 0; v < NV; v++) {
      const ivec quads = load_quads(x + v * kLanes);
      xs[v] = as_values(FLIP ? flipped(quads) : quads);
    }
#pragma GCC unroll 16
    for (int m = 0; m < MB; m++) {
      int32_t word;
      std::memcpy(&word, w + m * kQuad, sizeof word);
      const QuadWeights ws = as_weights(splat_quad(word));
#pragma GCC unroll 16
      for (int v = 0; v < NV; v++) sum[m][v] = dot(sum[m][v], xs[v], ws);
    }
  }
}

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
        store(y + at, keep(clamp(found, lo, hi), pixels(inside, q + at)));
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
      store_quads(y + at, keep_quads(bytes, pixels(inside, q + at)));
    }
  }
}

// One for all register blocks: their sums wait in the first cache.
template <bool TOKENS>
constexpr auto kFinish = std::array{finish<Residual::none, TOKENS>, finish<Residual::floats, TOKENS>, finish<Residual::unsigned_quads, TOKENS>, finish<Residual::signed_quads, TOKENS>};

template <int MB, int NV>
void quad_taps(const QuadTaps& t, int64_t q, int block_begin, int block_end) {
  constexpr int kMost = std::max(MB, kQuad);
  const bool flip = t.is_signed == kUnsignedQuads;
  const int rows = t.quads_out ? kMost : MB;  // that are stored at once
  const auto finish = (t.token ? kFinish<true> : kFinish<false>)[static_cast<size_t>(t.residual_kind)];
  ivec sums[kMost][NV];
  for (int b = block_begin; b < block_end; b++) {
    const int64_t row = static_cast<int64_t>(b) * MB, at = row % rows;
    ivec sum[MB][NV];
    if (flip)
      quad_sums<MB, NV, true>(t, q, b, sum);
    else
      quad_sums<MB, NV, false>(t, q, b, sum);
#pragma GCC unroll 16
    for (int m = 0; m < MB; m++)
#pragma GCC unroll 16
      for (int v = 0; v < NV; v++) sums[at + m][v] = sum[m][v];
    if (at + MB == rows) finish(t, row - at, rows, NV, q, sums[0]);
  }
}

// Of the registers of a CPU a block takes its sums, the tile's values unless each is used once, a row's weights, and constants.
constexpr bool quad_taps_fit(int mb, int nv) {
  constexpr int kRegisters = OW_ACCUMULATORS == 24 ? 32 : 16;
  const int values = mb == 1 ? 1 : nv, constants = kDotRegisters;
  return mb * nv <= OW_ACCUMULATORS && mb * nv + (values + 1) * kDotRegisters + constants <= kRegisters;
}

template <int MB, int... NV>
void fill_quad_taps(openwork::QuadTapsKernel* row, std::integer_sequence<int, NV...>) {
  const auto fill = [&]<int N>(std::integral_constant<int, N>) {
    if constexpr (quad_taps_fit(MB, N)) row[N - 1] = quad_taps<MB, N>;
  };
  (fill(std::integral_constant<int, NV + 1>()), ...);
}

void fill_quad_taps(openwork::QuadKernels& k) {
  constexpr auto kSequence = std::make_integer_sequence<int, openwork::kMaxQuadVectors>();
  fill_quad_taps<1>(k.taps[0], kSequence);
  fill_quad_taps<2>(k.taps[1], kSequence);
  fill_quad_taps<4>(k.taps[2], kSequence);
  fill_quad_taps<8>(k.taps[3], kSequence);
}

}  // namespace
