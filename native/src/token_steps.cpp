// Steps over tokens: attention, layer norm, embeddings, and values that never change.

#include <algorithm>
#include <cmath>
#include <string>

#include "byte_bounds.hpp"
#include "positions.hpp"

namespace openwork {
namespace {

// out = softmax(scale q^T k + mask) v, head by head. `q`, `k`, `v`, `out` are the channels of all heads in order; positions of
// sample n begin at n * stride. Fields `flags` (an external buffer of int32 [batch, keys], with `on` and `off`, null: minus
// infinity) and array `bias` [1 or heads, keys, bias_stride] mask.
class AttentionStep final : public Step {
 public:
  AttentionStep(const Fields& f, const Limits& limits)
      : batch_(f.integer("batch")),
        queries_(f.integer("queries")),
        keys_(f.integer("keys")),
        q_stride_(f.integer("q_stride")),
        k_stride_(f.integer("k_stride")),
        heads_(f.small("heads")),
        scale_(f.number("scale")),
        flags_(f.small("flags", -1)),
        on_(f.number("on", -__builtin_inff())),
        off_(f.number("off", -__builtin_inff())),
        q_(f.positions("q")),
        k_(f.positions("k")),
        v_(f.positions("v")),
        out_(f.positions("out")) {
    require_size(batch_, 1, "batch must be at least 1");
    require_size(queries_, 1, "attention needs at least one query");
    require_size(keys_, 1, "attention needs at least one key");
    require_size(q_stride_, 0, "a stride is out of range");
    require_size(k_stride_, 0, "a stride is out of range");
    require(heads_ >= 1 && !q_.empty() && q_.size() % static_cast<size_t>(heads_) == 0, "channels must divide among the heads");
    channels_ = static_cast<int>(q_.size()) / heads_;
    require(channels_ <= kMaxHead, "a head has more than 256 channels");
    require(k_.size() == q_.size() && v_.size() == q_.size() && out_.size() == q_.size(), "queries, keys, values and outputs must have as many channels as each other");
    // whole vectors of queries and blocks of keys are read, whole numbers of each are written
    constexpr int64_t kTile = kMaxQueries * kUnit;
    const int64_t q_reach = (batch_ - 1) * q_stride_ + (queries_ + kUnit - 1) / kUnit * kUnit;
    const int64_t k_reach = (batch_ - 1) * k_stride_ + (keys_ + 7) / 8 * 8;
    require_inside(q_, q_reach, limits.arena, "a query reads outside the arena");
    require_inside(k_, k_reach, limits.arena, "a key reads outside the arena");
    require_inside(v_, k_reach, limits.arena, "a value reads outside the arena");
    require_inside(out_, q_reach, limits.arena, "an output plane lies outside the arena");
    if (flags_ >= 0) {
      require(flags_ < static_cast<int>(limits.externals.size()), "the mask names an unknown buffer");
      require(batch_ * keys_ <= limits.externals[static_cast<size_t>(flags_)], "the mask lies outside its buffer");
    }
    if (f.has_array("bias")) {
      bias_ = f.floats("bias");
      bias_stride_ = f.integer("bias_stride");
      bias_heads_ = f.small("bias_heads");
      require_size(bias_stride_, (queries_ + kUnit - 1) / kUnit * kUnit, "the mask's rows are too short");
      require(bias_heads_ == 1 || bias_heads_ == heads_, "the mask must serve one or all heads");
      require(static_cast<int64_t>(bias_.size()) / bias_stride_ >= bias_heads_ * keys_, "the mask needs one row for each key");
    }
    tiles_ = static_cast<int>((queries_ + kTile - 1) / kTile);
    require(batch_ * heads_ < kMaxSize && batch_ * heads_ * tiles_ < kMaxSize, "attention is cut into too many chunks");
  }

  // A chunk is one tile of queries of one head; tiles of a head follow each other, since they read the same keys.
  int chunks() const override { return static_cast<int>(batch_) * heads_ * tiles_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const int tile = chunk % tiles_, head = chunk / tiles_ % heads_;
    const int64_t sample = chunk / tiles_ / heads_;
    const size_t first = static_cast<size_t>(head) * static_cast<size_t>(channels_);
    // a sample's positions are offsets on top of each channel's
    const float* const arena = context.arena;
    Attention a = {};
    a.channels = channels_;
    a.keys = keys_;
    a.scale = scale_;
    a.on = on_;
    a.off = off_;
    int32_t moved[4][kMaxHead];
    for (int c = 0; c < channels_; c++) {
      const size_t at = first + static_cast<size_t>(c);
      moved[0][c] = static_cast<int32_t>(q_[at] + sample * q_stride_);
      moved[1][c] = static_cast<int32_t>(k_[at] + sample * k_stride_);
      moved[2][c] = static_cast<int32_t>(v_[at] + sample * k_stride_);
      moved[3][c] = static_cast<int32_t>(out_[at] + sample * q_stride_);
    }
    a.arena = arena;
    a.arena_out = context.arena;
    a.q = moved[0];
    a.k = moved[1];
    a.v = moved[2];
    a.out = moved[3];
    if (flags_ >= 0) a.flags = reinterpret_cast<const int32_t*>(context.externals[flags_]) + sample * keys_;
    if (!bias_.empty()) {
      a.bias = bias_.data() + (bias_heads_ == 1 ? 0 : head) * keys_ * bias_stride_;
      a.bias_stride = bias_stride_;
    }
    // tiles differ by at most one vector, as those of convolutions do
    const int64_t vectors = (queries_ + kernels.lanes - 1) / kernels.lanes;
    const int64_t parts = (vectors + kMaxQueries - 1) / kMaxQueries;
    for (int64_t part = parts * tile / tiles_; part < parts * (tile + 1) / tiles_; part++) {
      const int64_t begin = vectors * part / parts * kernels.lanes, end = std::min(queries_, vectors * (part + 1) / parts * kernels.lanes);
      kernels.attention(a, begin, end - begin);
    }
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("attention_f32_") + kernels.name; }

 private:
  int64_t batch_, queries_, keys_, q_stride_, k_stride_, bias_stride_ = 0;
  int heads_, channels_ = 0, tiles_ = 1, bias_heads_ = 1;
  float scale_;
  int flags_;
  float on_, off_;
  std::vector<int32_t> q_, k_, v_, out_;
  Held<float> bias_;
};

// Layer norm over the channels of every position. Of floats "y" and quads "quads" one may be missing; "inverse", "lo" and "hi" say how quads are rounded,
// or "token" and "hi", of which the first is a plane of scales, one for each position.
class LayerNormStep final : public Step {
 public:
  LayerNormStep(const Fields& f, const Limits& limits)
      : x_(f.positions("x")),
        y_(f.positions("y")),
        quads_(f.positions("quads")),
        token_(f.small("token", -1)),
        weight_(f.floats("weight")),
        bias_(f.floats("bias")),
        eps_(f.number("eps")),
        inside_(inside_bits(f.numbers("grid"), limits.arena)) {
    require(!x_.empty() && (y_.size() == x_.size() || (y_.empty() && !quads_.empty())), "layer norm needs as many output as input planes");
    if (!quads_.empty()) {
      const ByteBounds bounds(f);
      if (token_ < 0) inverse_ = f.number("inverse");
      lo_ = bounds.lo;
      hi_ = bounds.hi;
      require(token_ < 0 || (hi_ >= 1 && lo_ == -hi_), kSymmetric);
      require(quads_.size() == (x_.size() + kQuad - 1) / kQuad, "layer norm needs one plane of quads for every four channels");
      require(std::isfinite(inverse_), "a scale must be finite");
    }
    require(weight_.size() == x_.size() && bias_.size() == x_.size(), "layer norm needs one weight and one bias for each channel");
    const int64_t reach = static_cast<int64_t>(inside_.size()) * kUnit;
    require_inside(x_, reach, limits.arena, "an input plane lies outside the arena");
    require_inside(y_, reach, limits.arena, "an output plane lies outside the arena");
    require_inside(quads_, reach, limits.arena, "an output plane lies outside the arena");
    require(token_ == -1 || (token_ >= 0 && !quads_.empty() && token_ + reach <= limits.arena), "scales of tokens lie outside the arena, or there are no quads");
    parts_ = position_parts(inside_.size(), limits);
  }

  int chunks() const override { return parts_; }

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    const Norm norm = {context.arena, context.arena, x_.data(), y_.empty() ? nullptr : y_.data(), static_cast<int>(x_.size()), weight_.data(), bias_.data(), eps_,
                       quads_.empty() ? nullptr : quads_.data(), inverse_, lo_, hi_, token_, inside_.data()};
    const int64_t units = static_cast<int64_t>(inside_.size());
    kernels.layer_norm(norm, units * chunk / parts_, units * (chunk + 1) / parts_);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("layer_norm_f32_") + kernels.name; }

 private:
  std::vector<int32_t> x_, y_, quads_;
  int token_;
  Held<float> weight_, bias_;
  float eps_, inverse_ = 1, lo_ = 0, hi_ = 0;
  std::vector<uint16_t> inside_;
  int parts_ = 1;
};

// y[c, n * stride + t] = table[ids[n, t], c] + added[t, c]; ids are int32 [batch, length] in an external buffer.
class EmbeddingStep final : public Step {
 public:
  EmbeddingStep(const Fields& f, const Limits& limits)
      : batch_(f.integer("batch")),
        length_(f.integer("length")),
        stride_(f.integer("stride")),
        ids_(f.small("ids")),
        out_(f.positions("out")),
        table_(f.floats("table")) {
    require_size(batch_, 1, "batch must be at least 1");
    require_size(length_, 1, "an embedding needs at least one token");
    require_size(stride_, 0, "a stride is out of range");
    require(!out_.empty() && !table_.empty() && table_.size() % out_.size() == 0, "a table needs whole rows of one value for each channel");
    require_inside(out_, (batch_ - 1) * stride_ + length_, limits.arena, "an output plane lies outside the arena");
    require(ids_ >= 0 && ids_ < static_cast<int>(limits.externals.size()), "the tokens name an unknown buffer");
    require(batch_ * length_ <= limits.externals[static_cast<size_t>(ids_)], "the tokens lie outside their buffer");
    if (f.has_array("added")) {
      added_ = f.floats("added");
      require(static_cast<int64_t>(added_.size()) == length_ * static_cast<int64_t>(out_.size()), "what is added needs one row for each position");
    }
  }

  int chunks() const override { return static_cast<int>((batch_ * length_ + kTokens - 1) / kTokens); }

  void check(const Context& context) const override {
    const int64_t rows = static_cast<int64_t>(table_.size() / out_.size());
    const int32_t* ids = this->ids(context);
    for (int64_t i = 0; i < batch_ * length_; i++)
      if (ids[i] < 0 || ids[i] >= rows)
        throw std::out_of_range("token " + std::to_string(ids[i]) + " at position " + std::to_string(i % length_) + " is not in the vocabulary of 0.." + std::to_string(rows - 1));
  }

  void run(const Kernels&, const Context& context, int chunk) const override {
    const int64_t channels = static_cast<int64_t>(out_.size()), end = std::min(batch_ * length_, (chunk + int64_t{1}) * kTokens);
    const int64_t last = static_cast<int64_t>(table_.size()) / channels - 1;
    for (int64_t begin = int64_t{chunk} * kTokens; begin < end;) {
      const int64_t sample = begin / length_, position = begin % length_;
      const int64_t count = std::min(end - begin, length_ - position);
      const float *row[kTokens], *added[kTokens];
      for (int64_t t = 0; t < count; t++) {
        // checked before, but a step or the caller may have written into the buffer since
        const int64_t id = std::clamp<int64_t>(ids(context)[begin + t], 0, last);
        row[t] = table_.data() + id * channels;
        added[t] = added_.empty() ? nullptr : added_.data() + (position + t) * channels;
      }
      for (int64_t c = 0; c < channels; c++) {
        float* y = context.arena + out_[static_cast<size_t>(c)] + sample * stride_ + position;
        for (int64_t t = 0; t < count; t++) y[t] = row[t][c] + (added[t] ? added[t][c] : 0.0f);
      }
      begin += count;
    }
  }

  std::string kernel(const Kernels&) const override { return "embedding_f32"; }

 private:
  static constexpr int64_t kTokens = 16;
  const int32_t* ids(const Context& context) const { return reinterpret_cast<const int32_t*>(context.externals[ids_]); }

  int64_t batch_, length_, stride_;
  int ids_;
  std::vector<int32_t> out_;
  Held<float> table_, added_;
};

// Planes whose values never change, [channels, rows, columns], the same for every sample: written once.
class ConstantStep final : public Step {
 public:
  ConstantStep(const Fields& f, const Limits& limits)
      : batch_(f.integer("batch")), stride_(f.integer("stride")), rows_(f.integer("rows", 1)), pitch_(f.integer("pitch", 0)), out_(f.positions("out")), value_(f.floats("value")) {
    require_size(batch_, 1, "batch must be at least 1");
    require_size(stride_, 0, "a stride is out of range");
    require_size(rows_, 1, "a constant needs at least one row");
    require_size(pitch_, 0, "a pitch is out of range");
    const size_t all = out_.size() * static_cast<size_t>(rows_);
    require(!out_.empty() && !value_.empty() && value_.size() % all == 0, "a constant needs as many values for each plane");
    width_ = static_cast<int64_t>(value_.size() / all);
    require_inside(out_, (batch_ - 1) * stride_ + (rows_ - 1) * pitch_ + width_, limits.arena, "an output plane lies outside the arena");
  }

  int chunks() const override { return 0; }
  void run(const Kernels&, const Context&, int) const override {}
  void settle(float* arena) const override {
    const float* value = value_.data();
    for (int32_t plane : out_)
      for (int64_t row = 0; row < rows_; row++, value += width_)
        for (int64_t n = 0; n < batch_; n++) std::copy_n(value, width_, arena + plane + n * stride_ + row * pitch_);
  }
  std::string kernel(const Kernels&) const override { return "constant_f32"; }

 private:
  int64_t batch_, stride_, rows_, pitch_;
  std::vector<int32_t> out_;
  Held<float> value_;
  int64_t width_ = 0;
};

const StepKind attention_kind("attention", make<AttentionStep>), layer_norm_kind("layer_norm", make<LayerNormStep>),
    embedding_kind("embedding", make<EmbeddingStep>), constant_kind("constant", make<ConstantStep>);

}  // namespace
}  // namespace openwork
