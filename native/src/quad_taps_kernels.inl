// Weighted sums of shifted planes of quads.

#include <utility>

#include "quad_finish.inl"

namespace {

// The sums of a register block: MB of BLOCK rows that share their taps, from row `first` on, x NV vectors of positions, as in taps_f32.
// FLIP: x is of the other kind than dot() takes.
template <int BLOCK, int MB, int NV, bool FLIP>
__attribute__((always_inline)) inline void quad_sums(const QuadTaps& t, int64_t q, int b, int first, ivec (&sum)[MB][NV]) {
  constexpr bool kTiles = BLOCK == openwork::kTile;
  const int32_t* const start = t.start + static_cast<int64_t>(b) * BLOCK + first;
#pragma GCC unroll 16
  for (int m = 0; m < MB; m++)
#pragma GCC unroll 16
    for (int v = 0; v < NV; v++) sum[m][v] = splat_quad(start[m]);

  const float* const x_tile = t.arena + q;
  const int8_t* w = t.value + openwork::quad_weight(BLOCK, t.begin[b], first) * kQuad;
  const int32_t* const offset_begin = t.offset + t.list[b] + t.begin[b];
  const int32_t* const offset_end = t.offset + t.list[b] + t.end[b];
  for (const int32_t* offset = offset_begin; offset != offset_end; offset++) {
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
      std::memcpy(&word, w + m * (kTiles ? openwork::kTile : 1) * kQuad, sizeof word);
      const QuadWeights ws = as_weights(splat_quad(word));
#pragma GCC unroll 16
      for (int v = 0; v < NV; v++) sum[m][v] = dot(sum[m][v], xs[v], ws);
    }
    w += (kTiles ? 1 : MB) * kQuad;
    if (kTiles && (offset - offset_begin) % openwork::kTile == openwork::kTile - 1) w += (openwork::kTile - 1) * openwork::kTile * kQuad;
  }
}

template <int MB, int NV>
void quad_taps(const QuadTaps& t, int64_t q, int block_begin, int block_end) {
  constexpr int kMost = std::max(MB, kQuad), kPart = std::min(MB, 8);  // rows that wait, and that are summed at once
  const bool flip = t.is_signed == kUnsignedQuads;
  const int rows = t.quads_out ? kMost : MB;  // that are stored at once
  const auto finish = (t.token ? kFinish<true> : kFinish<false>)[static_cast<size_t>(t.residual_kind)];
  ivec sums[kMost][NV];
  for (int b = block_begin; b < block_end; b++) {
    const int64_t row = static_cast<int64_t>(b) * MB, at = row % rows;
    for (int first = 0; first < MB; first += kPart) {
      ivec sum[kPart][NV];
      if (flip)
        quad_sums<MB, kPart, NV, true>(t, q, b, first, sum);
      else
        quad_sums<MB, kPart, NV, false>(t, q, b, first, sum);
#pragma GCC unroll 16
      for (int m = 0; m < kPart; m++)
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++) sums[at + first + m][v] = sum[m][v];
    }
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
    if constexpr (quad_taps_fit(std::min(MB, 8), N)) row[N - 1] = quad_taps<MB, N>;
  };
  (fill(std::integral_constant<int, NV + 1>()), ...);
}

void fill_quad_taps(openwork::QuadKernels& k) {
  constexpr auto kSequence = std::make_integer_sequence<int, openwork::kMaxQuadVectors>();
  fill_quad_taps<1>(k.taps[0], kSequence);
  fill_quad_taps<2>(k.taps[1], kSequence);
  fill_quad_taps<4>(k.taps[2], kSequence);
  fill_quad_taps<8>(k.taps[3], kSequence);
  fill_quad_taps<openwork::kTile>(k.taps[4], kSequence);
}

}  // namespace
