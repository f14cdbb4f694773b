// Weighted sums of shifted planes of quads on AMX: registers of 16 rows x 64 bytes.
//
// Weights are one factor, 16 rows x 16 taps; values the other, 16 taps x 16 positions, each tap's being a stretch of its plane. Where planes
// lie at equal distances and stretches at whole cache lines, as those of 1x1 layers do, they are loaded from where they lie. Others are
// copied side by side first: loads of tiles across cache lines take six times as long. Blocks with one list, those of dense
// layers, share what is copied.

namespace {

using openwork::kTile;

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static_assert(sizeof(TileShapes) == 64);

// The intrinsic tells the compiler of the first 8 bytes only.
void open_tiles() {
  static constexpr TileShapes kShapes;
  asm volatile("ldtilecfg %0" : : "m"(kShapes));
}

void close_tiles() { _tile_release(); }

// Where the values of a list's taps lie for a tile of positions.
class TileValues {
 public:
  // Copies what cannot be loaded from the arena, unless the call before has.
  TileValues(const QuadTaps& t, int64_t q, int nv, int b)
      : x_(t.arena + q), scratch_(t.scratch), offset_(t.offset + t.list[b] + t.begin[b]), rows_(t.tiles + (t.list[b] + t.begin[b]) / kTile), nv_(nv), count_((t.end[b] - t.begin[b]) / kTile),
        aligned_(reinterpret_cast<uintptr_t>(x_) % 64 == 0) {
    const openwork::TileCopy here = {t.list[b] + t.begin[b], t.end[b] - t.begin[b], q, nv};
    if (count_ == 0 || here == *t.copied) return;
    *t.copied = here;
    for (int g = 0; g < count_; g++) {
      if (direct(g)) continue;
      float* to = copied(g);
      for (int i = 0; i < kTile; i++)
        for (int v = 0; v < nv; v++, to += kTile) store_quads(to, load_quads(x_ + offset_[g * kTile + i] + v * kTile));
    }
    asm volatile("" : : : "memory");  // compilers do not know that tiles are loaded from memory
  }

  int count() const { return count_; }

  const float* at(int g, int v) const { return (direct(g) ? x_ + offset_[g * kTile] : copied(g)) + v * kTile; }
  int64_t stride(int g) const { return int64_t{4} * (direct(g) ? rows_[g].stride : nv_ * kTile); }  // bytes

 private:
  bool direct(int g) const { return aligned_ && rows_[g].regular; }
  float* copied(int g) const { return scratch_ + int64_t{g} * nv_ * kTile * kTile; }

  const float* x_;
  float* scratch_;
  const int32_t* offset_;
  const openwork::TileRows* rows_;
  int nv_, count_;
  bool aligned_;
};

// Sums [16][vectors] of one or two blocks' rows, at one or two vectors of positions from v on.
template <bool SIGNED, bool TWO_BLOCKS, bool TWO_VECTORS>
void tile_sums(const TileValues& x, int v, const int8_t* w, const int8_t* w_next, ivec* sums, ivec* sums_next, int64_t vectors) {
  constexpr int64_t kBytes = kTile * kQuad;
#define OW_DOT(sum, weights, values)             \
  if constexpr (SIGNED)                          \
    _tile_dpbssd(sum, weights, values);          \
  else                                           \
    _tile_dpbsud(sum, weights, values)
  _tile_zero(0);
  if constexpr (TWO_VECTORS) _tile_zero(1);
  if constexpr (TWO_BLOCKS) _tile_zero(2);
  if constexpr (TWO_BLOCKS && TWO_VECTORS) _tile_zero(3);
  for (int g = 0; g < x.count(); g++) {
    const float* const values = x.at(g, v);
    const int64_t apart = x.stride(g);
    _tile_loadd(4, w + g * kTile * kBytes, kBytes);
    _tile_loadd(6, values, apart);
    OW_DOT(0, 4, 6);
    if constexpr (TWO_VECTORS) {
      _tile_loadd(7, values + kTile, apart);
      OW_DOT(1, 4, 7);
    }
    if constexpr (TWO_BLOCKS) {
      _tile_loadd(5, w_next + g * kTile * kBytes, kBytes);
      OW_DOT(2, 5, 6);
    }
    if constexpr (TWO_BLOCKS && TWO_VECTORS) {
      OW_DOT(3, 5, 7);
    }
  }
#undef OW_DOT
  _tile_stored(0, sums, vectors * kBytes);
  if constexpr (TWO_VECTORS) _tile_stored(1, sums + 1, vectors * kBytes);
  if constexpr (TWO_BLOCKS) _tile_stored(2, sums_next, vectors * kBytes);
  if constexpr (TWO_BLOCKS && TWO_VECTORS) _tile_stored(3, sums_next + 1, vectors * kBytes);
}

constexpr int kTileVectors = 6;  // of positions, at most; 4 are the fastest as a rule

// One or two blocks' sums, [16][vectors of the tile] each.
struct TileSums {
  int64_t row = 0;  // the first
  int blocks = 0;
  alignas(64) ivec sums[2][kTile * kTileVectors];
};

// Sums begin with zero: no value is flipped. What becomes of a pair of blocks' sums is found while those of the next pair are on their
// way: they take 50 cycles from the multiplication alone.
template <bool SIGNED>
void sum_tiles(const QuadTaps& t, int64_t q, int nv, int block_begin, int block_end) {
  TileSums pairs[2];
  int turn = 0;
  const auto finish = (t.token ? kFinish<true> : kFinish<false>)[static_cast<size_t>(t.residual_kind)];
  const auto finish_pair = [&](const TileSums& pair) {
    for (int i = 0; i < pair.blocks; i++) finish(t, pair.row + i * kTile, kTile, nv, q, pair.sums[i]);
  };
  const auto weights = [&](int b) { return t.value + openwork::quad_weight(kTile, t.begin[b], 0) * kQuad; };
  const auto list = [&](int b) { return std::pair(t.list[b] + t.begin[b], t.end[b] - t.begin[b]); };
  for (int b = block_begin, next; b < block_end; b = next) {
    const TileValues x(t, q, nv, b);
    for (next = b; next < block_end && list(next) == list(b); turn ^= 1) {
      const bool two = next + 1 < block_end && list(next + 1) == list(b);
      TileSums& pair = pairs[turn];
      pair.row = int64_t{next} * kTile;
      pair.blocks = 1 + two;
      const int8_t *const w = weights(next), *const w_next = two ? weights(next + 1) : nullptr;
      for (int v = 0; v < nv; v += 2) {
        const bool wide = v + 1 < nv;
        const auto add = two ? (wide ? tile_sums<SIGNED, true, true> : tile_sums<SIGNED, true, false>) : (wide ? tile_sums<SIGNED, false, true> : tile_sums<SIGNED, false, false>);
        add(x, v, w, w_next, pair.sums[0] + v, pair.sums[1] + v, nv);
      }
      next += pair.blocks;
      finish_pair(pairs[turn ^ 1]);
    }
  }
  finish_pair(pairs[turn ^ 1]);
}

template <int NV>
void quad_tiles(const QuadTaps& t, int64_t q, int block_begin, int block_end) {
  (t.is_signed ? sum_tiles<true> : sum_tiles<false>)(t, q, NV, block_begin, block_end);
}

template <int... NV>
void fill_quad_tiles(openwork::QuadTapsKernel* row, std::integer_sequence<int, NV...>) {
  ((row[NV] = quad_tiles<NV + 1>), ...);
}

void fill_quad_tiles(openwork::QuadKernels& k) {
  std::fill(std::begin(k.taps[4]), std::end(k.taps[4]), nullptr);
  fill_quad_tiles(k.taps[4], std::make_integer_sequence<int, kTileVectors>());
  k.open_tiles = open_tiles;
  k.close_tiles = close_tiles;
}

}  // namespace
