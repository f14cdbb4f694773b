// Convolutions on 8-bit values: weighted sums of shifted planes of quads, with an epilogue to floats or to 8 bits again.

#include <cmath>

#include "byte_bounds.hpp"
#include "quad_starts.hpp"
#include "tap_blocks.hpp"

namespace openwork {
namespace {

// See QuadTaps. Fields as those of "taps", but "mb" may be 16; array "value" holds int8 [taps][mb][4], or [taps / 16][16][16][4] in blocks of
// 16 rows, whose lists are of whole sixteens of taps. "quads_out": four rows are a plane of quads, also
// where blocks have one or two rows; "lo" and "hi" are then whole numbers.
// With "act" results are floats until it has come over them, and then k = clamp(round(y * "inverse"), lo, hi).
// "token": the plane of scales that "quantize_tokens" has made with the quads, one for each position.
// "residual_kind": "none", "float" (a plane for each row), "u8" or "s8" (a plane of quads for every four rows).
class QuadTapsStep final : public Step {
 public:
  QuadTapsStep(const Fields& f, const Limits& limits) : QuadTapsStep(f, limits, f.boolean("quads_out") ? kQuad : 1) {}

  int chunks() const override { return blocks_.chunks(); }
  int64_t scratch() const override { return scratch_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    float* const arena = context.arena + blocks_.slab_at(chunk);
    TileCopy copied;
    const QuadTaps taps = {arena, arena, blocks_.start().data(), blocks_.start().data() + 1, blocks_.list(), blocks_.offset(), value_.data(), start_.of(kernels, signed_), scale_.data(),
                           bias_.data(), out_.data(), residual_.data(), residual_kind_, residual_scale_, blocks_.inside(chunk), bounds_.lo, bounds_.hi, signed_, quads_out_,
                           small_, token_ < 0 ? nullptr : arena + token_, tiles_.data(), context.scratch + context.thread * room(), &copied};
    const TilesOpen open(blocks_.mb() == kTile ? &kernels.quads : nullptr);
    const QuadTapsKernel* const family = kernels.quads.taps[blocks_.family()];
    blocks_.for_tiles(chunk, kernels.lanes, blocks_.fitting(family), [&](const TapBlocks::Tile& tile) {
      if (act_ && quads_out_) return run_rounded(kernels, taps, family[tile.vectors - 1], tile);
      blocks_.run_activated(kernels, act_, arena, out_, chunk, tile, [&](int begin, int end) { family[tile.vectors - 1](taps, tile.q, begin, end); });
    });
  }

  std::string kernel(const Kernels& kernels) const override {
    const int vectors = blocks_.fitting(kernels.quads.taps[blocks_.family()]);
    return "taps_i8_" + std::to_string(blocks_.mb()) + "x" + std::to_string(vectors) + "_" + kernels.name + act_.suffix();
  }

 private:
  // Tiles are open as long as it lives.
  struct TilesOpen {
    explicit TilesOpen(const QuadKernels* kernels) : kernels(kernels && kernels->open_tiles ? kernels : nullptr) {
      if (this->kernels) this->kernels->open_tiles();
    }
    ~TilesOpen() {
      if (kernels) kernels->close_tiles();
    }
    TilesOpen(const TilesOpen&) = delete;
    TilesOpen& operator=(const TilesOpen&) = delete;
    const QuadKernels* kernels;
  };

  static constexpr int kRows = 32;                        // whose floats wait for the activation, in the first cache
  static constexpr int kWidth = kMaxQuadVectors * kUnit;  // positions of the widest tile

  // A tile whose results become bytes behind the activation.
  void run_rounded(const Kernels& kernels, const QuadTaps& taps, QuadTapsKernel kernel, const TapBlocks::Tile& tile) const {
    alignas(64) float floats[kRows * kWidth];
    const int64_t width = int64_t{tile.vectors} * kernels.lanes;
    float* const origin = floats - tile.q;
    QuadTaps rows = taps;
    rows.arena_out = origin;
    rows.out = waiting_.data();
    rows.quads_out = false;
    rows.lo = -__builtin_inff();
    rows.hi = __builtin_inff();
    const int each = kRows / blocks_.mb();
    for (int b = tile.begin; b < tile.end; b += each) {
      const int end = std::min(b + each, tile.end);
      kernel(rows, tile.q, b, end);
      for (size_t row = static_cast<size_t>(b * blocks_.mb()); row < static_cast<size_t>(end * blocks_.mb()); row += kQuad) {
        Quantize quads = {{}, taps.arena_out + out_[row / kQuad], taps.inside, tile.q, width, inverse_, bounds_.lo, bounds_.hi};
        for (size_t c = 0; c < kQuad; c++) {
          float* const y = floats + waiting_[row + c];
          act_.apply(kernels, y, y, width, row + c);
          quads.x[c] = origin + waiting_[row + c];
        }
        kernels.quads.quantize(quads);
      }
    }
  }

  // rows: of outputs in a plane
  QuadTapsStep(const Fields& f, const Limits& limits, int rows)
      : QuadTapsStep(f, limits, rows, TapLists(f, block_rows(f, true), static_cast<int64_t>(f.positions("out").size()) * rows, block_rows(f, true) == kTile ? kTile : 1)) {}

  QuadTapsStep(const Fields& f, const Limits& limits, int rows, const TapLists& lists)
      : quads_out_(rows == kQuad),
        signed_(f.boolean("signed")),
        blocks_(f, limits, lists, std::max(1, rows / lists.rows)),
        value_(lists.rows == kTile ? f.aligned_signed_bytes("value") : f.signed_bytes("value")),
        scale_(f.floats("scale")),
        bias_(f.floats("bias")),
        out_(f.positions("out")),
        residual_(f.positions("residual")),
        residual_kind_(kind_named(f.string("residual_kind", "none"))),
        residual_scale_(f.number("residual_scale", 1.0f)),
        bounds_(f),
        act_(f),
        inverse_(f.number("inverse", 1.0f)),
        token_(f.small("token", -1)) {
    const size_t count = blocks_.rows();
    require(value_.size() == static_cast<size_t>(blocks_.start().back()) * static_cast<size_t>(blocks_.mb() * kQuad), "taps need four values for each row of the block");
    require(scale_.size() == count && bias_.size() == count, "taps need one scale and one bias for each row");
    require(out_.size() * static_cast<size_t>(rows) == count, "taps need one output plane for each row, or for every four");
    const size_t each = residual_kind_ == Residual::none ? 0 : residual_kind_ == Residual::floats ? 1 : kQuad;
    require(each == 0 ? residual_.empty() : residual_.size() * each == count, "taps need one residual plane for each row, or for every four, or none");
    blocks_.check_planes(out_, "an output plane lies outside the arena");
    blocks_.check_planes(residual_, "a residual plane lies outside the arena");
    if (quads_out_) {
      ByteBounds{f};
      require(std::isfinite(inverse_), "a scale must be finite");
      for (size_t row = 0; act_ && row < count; row++) waiting_.push_back(static_cast<int32_t>(row % kRows * kWidth));
    }
    if (token_ != -1) blocks_.check_planes({token_}, "scales of tokens lie outside the arena");
    sum_weights();
    if (blocks_.mb() == kTile) find_tiles(lists, limits);
    small_ = all_small();
  }

  // Sums are whole numbers of 32 bits, and so are what most scales make of them.
  bool all_small() const {
    if (residual_kind_ == Residual::floats || token_ >= 0) return false;
    const double residual = residual_kind_ == Residual::none ? 0 : 255 * std::abs(double{residual_scale_});
    for (size_t r = 0; r < scale_.size(); r++)
      if (!(std::abs(double{scale_.data()[r]}) * 0x1p31 + std::abs(double{bias_.data()[r]}) + residual < 0x1p30)) return false;
    return true;
  }

  static Residual kind_named(const std::string& name) {
    constexpr const char* kNames[] = {"none", "float", "u8", "s8"};  // as Residual counts
    for (int i = 0; i < 4; i++)
      if (name == kNames[i]) return static_cast<Residual>(i);
    throw std::invalid_argument("unknown kind of residual '" + name.substr(0, 40) + "'");
  }

  void sum_weights() {
    const size_t mb = static_cast<size_t>(blocks_.mb());
    for (size_t b = 0; b < blocks_.blocks(); b++) {
      for (size_t m = 0; m < mb; m++) {
        int64_t sum = 0;
        for (int32_t tap = blocks_.start()[b]; tap < blocks_.start()[b + 1]; tap++)
          for (size_t c = 0; c < kQuad; c++) sum += value_[static_cast<size_t>(quad_weight(blocks_.mb(), tap, static_cast<int64_t>(m))) * kQuad + c];
        start_.add(sum, signed_);
      }
    }
  }

  void find_tiles(const TapLists& lists, const Limits& limits) {
    const int32_t* const offset = blocks_.offset();
    for (size_t at = 0; at < lists.index.size(); at += kTile) {
      const int64_t stride = int64_t{offset[at + 1]} - offset[at];
      bool regular = offset[at] % kTile == 0 && stride % kTile == 0 && std::abs(stride) < kMaxSize;
      for (size_t i = 1; i < kTile; i++) regular = regular && int64_t{offset[at + i]} - offset[at + i - 1] == stride;
      tiles_.push_back({regular ? static_cast<int32_t>(stride) : 0, regular});
    }
    for (size_t b = 0; b < blocks_.blocks(); b++) longest_ = std::max<int64_t>(longest_, blocks_.start()[b + 1] - blocks_.start()[b]);
    require(longest_ * blocks_.vectors() * kTile < kMaxSize / limits.threads, "lists of taps are too long");
    scratch_ = room() * limits.threads;
  }

  int64_t room() const { return longest_ * blocks_.vectors() * kTile; }  // of a thread, in floats

  bool quads_out_, signed_;
  TapBlocks blocks_;
  Held<int8_t> value_;
  Held<float> scale_, bias_;
  std::vector<int32_t> out_, residual_;
  Residual residual_kind_;
  float residual_scale_;
  Bounds bounds_;
  Activation act_;
  float inverse_;
  int token_;
  std::vector<int32_t> waiting_;  // where a row's floats wait for the activation
  QuadStarts start_;
  std::vector<TileRows> tiles_;  // of the lists, see QuadTaps
  int64_t longest_ = 0;          // of these lists
  int64_t scratch_ = 0;
  bool small_ = false;
};

const StepKind kind("quad_taps", make<QuadTapsStep>);

}  // namespace
}  // namespace openwork
