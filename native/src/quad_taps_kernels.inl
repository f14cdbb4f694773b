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

// Sums of a row at position `at`, scaled, with bias and residual.
template <Residual RESIDUAL>
inline vec scaled(const QuadTaps& t, int64_t row, int64_t at, ivec sum) {
  const vec y = fused(to_float(sum), splat(t.scale[row]), splat(t.bias[row]));
  if constexpr (RESIDUAL == Residual::none) return y;
  if constexpr (RESIDUAL == Residual::floats) return fused(load(t.arena + t.residual[row] + at), splat(t.residual_scale), y);
  const ivec quads = load_quads(t.arena + t.residual[row / kQuad] + at);
  return fused(to_float(channel<RESIDUAL == Residual::signed_quads>(quads, row % kQuad)), splat(t.residual_scale), y);
}

// Stores `count` rows from `row` on, sums [count][nv], at positions from q on.
template <Residual RESIDUAL>
void finish(const QuadTaps& t, int64_t row, int count, int nv, int64_t q, const ivec* sums) {
  const vec lo = splat(t.lo), hi = splat(t.hi);
  const ByteRange range(t.quads_out ? t.lo : 0, t.quads_out ? t.hi : 0);  // floats may have no bounds
  for (int m = 0; m < count && !t.quads_out; m++)
    for (int v = 0; v < nv; v++) {
      const int64_t at = q + v * kLanes;
      const vec y = clamp(scaled<RESIDUAL>(t, row + m, at, sums[m * nv + v]), lo, hi);
      store(t.arena_out + t.out[row + m] + at, keep(y, pixels(t.inside, at)));
    }
  for (int m = 0; m < count && t.quads_out; m += kQuad)
    for (int v = 0; v < nv; v++) {
      const int64_t at = q + v * kLanes;
      vec y[kQuad];
#pragma GCC unroll 4
      for (int c = 0; c < kQuad; c++) y[c] = scaled<RESIDUAL>(t, row + m + c, at, sums[(m + c) * nv + v]);
      ivec quads = rounded_quads(y[0], y[1], y[2], y[3], range);
      if (t.table) quads = looked_up(t.table, quads);
      store_quads(t.arena_out + t.out[(row + m) / kQuad] + at, keep_quads(quads, pixels(t.inside, at)));
    }
}

// One for all register blocks: their sums wait in the first cache.
constexpr auto kFinish = std::array{finish<Residual::none>, finish<Residual::floats>, finish<Residual::unsigned_quads>, finish<Residual::signed_quads>};

template <int MB, int NV>
void quad_taps(const QuadTaps& t, int64_t q, int block_begin, int block_end) {
  constexpr int kMost = std::max(MB, kQuad);
  const bool flip = t.is_signed == kUnsignedQuads;
  const int rows = t.quads_out ? kMost : MB;  // that are stored at once
  const auto finish = kFinish[static_cast<size_t>(t.residual_kind)];
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
