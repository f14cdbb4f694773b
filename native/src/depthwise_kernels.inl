// Depthwise convolution, plane by plane. The rows that some rows of outputs read are first laid below each other with zeros
// around them, even and odd columns apart where the stride is 2: every tap is then a load at a fixed distance, and a loaded
// vector serves the outputs of up to four rows. Included by kernels.inl.

namespace {

using openwork::Depthwise;

constexpr int kStaged = 3072;  // floats of rows laid out at a time: two blocks of them stay in the first cache
constexpr int kStrip = 128;    // columns that a strip of outputs covers

// Keeps the compiler from loading it once more for every use.
inline vec in_register(vec v) {
#if OW_LANES == 16 && defined(__AVX512F__)
  asm("" : "+v"(v));
#elif OW_LANES == 8 && defined(__AVX2__)
  asm("" : "+x"(v));
#endif
  return v;
}

// Rows that are laid out: row i begins at x + row[i], or is all zeros.
struct Staged {
  const float* x;
  const int64_t* row;
  int rows;
  int64_t n;      // pixels of a row
  int64_t at;     // column of the first one
  int64_t phase;  // floats from even columns to odd ones
  int64_t pitch;  // from a row to the next
  int64_t next;   // from x to where the next block's rows lie
};

// A stripe of columns down all rows, so that short rows, of which there are many, cost no more than their vectors.
template <int STRIDE>
inline void stage(const Staged& s, float* lines) {
  for (int64_t i = 0; i < s.n; i += STRIDE * kLanes) {
    const int64_t left = s.n - i;
    float* to = lines + (s.at + i) % STRIDE * s.phase + (s.at + i) / STRIDE;
    float* to_odd = STRIDE == 1 ? nullptr : lines + (s.at + i + 1) % STRIDE * s.phase + (s.at + i + 1) / STRIDE;
    const auto down = [&](int64_t count) {
      for (int r = 0; r < s.rows; r++, to += s.pitch, to_odd += STRIDE == 1 ? 0 : s.pitch) {
        if (s.row[r] == Depthwise::kNoRow) continue;
        const float* const x = s.x + s.row[r] + i;
        __builtin_prefetch(x + s.next, 0, 3);
        if constexpr (STRIDE == 1) {
          store_first(to, load_first(x, count), count);
        } else {
          __builtin_prefetch(x + s.next + kLanes, 0, 3);
          const vec a = load_first(x, count), b = load_first(x + kLanes, count - kLanes);
          store_first(to, evens(a, b), (count + 1) / 2);
          store_first(to_odd, odds(a, b), count / 2);
        }
      }
    };
    if (left >= STRIDE * kLanes)
      down(STRIDE * kLanes);
    else
      down(left);
  }
}

// The rows of a plane's outputs that are worked on at a time.
struct DepthwiseRows {
  const float* lines;  // the first row that is read
  int64_t pitch;       // from a row that is read to the next
  int64_t phase;       // from even columns to odd ones
  float* y;
  int64_t y_pitch;
  int n;  // outputs of a row
};

// `rows` rows of outputs for a kernel of KH x KW, ROWS at a time, in stripes of columns. The last ROWS may be some of those
// before them, once more.
template <int KH, int KW, int STRIDE, int ROWS>
void depthwise_rows(const DepthwiseRows d, const float* w, int rows, vec bias, vec lo, vec hi) {
  constexpr int kRead = (ROWS - 1) * STRIDE + KH;
  for (int o = 0; o < d.n; o += kLanes) {
    const int64_t count = d.n - o;
    for (int row = 0; row < rows; row += ROWS) {
      const int top = std::min(row, rows - ROWS);
      const float* const lines = d.lines + top * STRIDE * d.pitch + o;
      vec acc[ROWS];
      for (int r = 0; r < ROWS; r++) acc[r] = bias;
#pragma GCC unroll 16
      for (int k = 0; k < KW; k++) {
        const float* line = lines + k % STRIDE * d.phase + k / STRIDE;
        vec x[kRead];
#pragma GCC unroll 32
        for (int i = 0; i < kRead; i++, line += d.pitch) x[i] = in_register(load(line));
        // Sums that do not wait for each other follow each other.
#pragma GCC unroll 16
        for (int i = 0; i < KH; i++) {
          const vec weight = splat(w[i * KW + k]);
#pragma GCC unroll 8
          for (int r = 0; r < ROWS; r++) acc[r] += weight * x[r * STRIDE + i];
        }
      }
      float* y = d.y + top * d.y_pitch + o;
      for (int r = 0; r < ROWS; r++, y += d.y_pitch) store_first(y, clamp(acc[r], lo, hi), count);
    }
  }
}

// Rows of outputs in a tile: with what they read they fill the registers.
constexpr int kDepthwiseRows = OW_ACCUMULATORS >= 20 ? 8 : 4;

template <int KH, int KW, int STRIDE, int ROWS = kDepthwiseRows>
void depthwise_block(const Depthwise& s, const float* w, const DepthwiseRows& d, int rows, float b, vec lo, vec hi) {
  const int tiles = (rows + kDepthwiseRows - 1) / kDepthwiseRows, each = (rows + tiles - 1) / tiles;
  if constexpr (ROWS > 1)
    if (each < ROWS) return depthwise_block<KH, KW, STRIDE, ROWS - 1>(s, w, d, rows, b, lo, hi);
  depthwise_rows<KH, KW, STRIDE, ROWS>(d, w, rows, splat(b), lo, hi);
}

// The same for a kernel of any size, row by row.
template <int STRIDE>
void depthwise_block_any(const Depthwise& s, const float* w, const DepthwiseRows& d, int rows, float b, vec lo, vec hi) {
  for (int r = 0; r < rows; r++)
    for (int o = 0; o < d.n; o += kLanes) {
      vec acc = splat(b);
      for (int i = 0; i < s.kh; i++)
        for (int k = 0; k < s.kw; k++) acc += splat(w[i * s.kw + k]) * load(d.lines + (r * STRIDE + i) * d.pitch + k % STRIDE * d.phase + k / STRIDE + o);
      store_first(d.y + r * d.y_pitch + o, clamp(acc, lo, hi), d.n - o);
    }
}

template <int STRIDE>
void depthwise_strided(const Depthwise& d) {
  const auto block = d.kh == 3 && d.kw == 3   ? depthwise_block<3, 3, STRIDE>
                     : d.kh == 5 && d.kw == 5 ? depthwise_block<5, 5, STRIDE>
                                              : depthwise_block_any<STRIDE>;
  const vec lo = splat(d.lo), hi = splat(d.hi);
  constexpr int kOutputs = kStrip / STRIDE;
  static_assert(kStaged / (STRIDE * (kOutputs + openwork::kUnit)) >= openwork::kMaxDepthwise, "the rows of one output are laid out at a time");
  alignas(64) float lines[2][kStaged];
  for (int begin = 0; begin < d.out_w; begin += kOutputs) {
    const int n = std::min(kOutputs, d.out_w - begin);
    // of the strip, on the image's columns
    const int64_t left = int64_t{begin} * STRIDE - d.before, span = int64_t{n - 1} * STRIDE + d.kw;
    const int64_t first = std::clamp<int64_t>(left, 0, d.w), last = std::clamp<int64_t>(left + span, 0, d.w);
    const int64_t phase = (n + kUnit - 1) / kUnit * kUnit + kUnit, pitch = STRIDE * phase;
    const int most = std::min(d.out_h, static_cast<int>((kStaged / pitch - d.kh) / STRIDE) + 1);  // rows of a block of outputs
    const int blocks = (d.out_h + most - 1) / most;
    // what lies beside the image stays zero for all planes
    for (auto& each : lines) std::fill_n(each, ((most - int64_t{1}) * STRIDE + d.kh) * pitch, 0.0f);
    const auto rows_of = [&](int b) { return std::min(most, d.out_h - b * most); };
    const auto lay_out = [&](int p, int b, float* to) {
      const int64_t* const row = d.row + b * most * STRIDE;
      const int rows = (rows_of(b) - 1) * STRIDE + d.kh;
      for (int i = 0; i < rows && blocks > 1; i++)  // a whole plane's rows of zeros stay
        if (row[i] == Depthwise::kNoRow) std::fill_n(to + i * pitch, pitch, 0.0f);
      const int64_t next = p + 1 < d.planes ? int64_t{d.x_plane[p + 1]} - d.x_plane[p] : 0;
      stage<STRIDE>({d.x + d.x_plane[p] + first, row, rows, last - first, first - left, phase, pitch, next}, to);
    };
    // A block is laid out while the one before is computed: what was just stored cannot be loaded across the edges of stores.
    lay_out(0, 0, lines[0]);
    int turn = 0;
    for (int p = 0; p < d.planes; p++)
      for (int b = 0; b < blocks; b++, turn ^= 1) {
        if (b + 1 < blocks)
          lay_out(p, b + 1, lines[turn ^ 1]);
        else if (p + 1 < d.planes)
          lay_out(p + 1, 0, lines[turn ^ 1]);
        const DepthwiseRows outputs = {lines[turn], pitch, phase, d.y + d.y_plane[p] + b * most * d.y_pitch + begin, d.y_pitch, n};
        block(d, d.weight + int64_t{p} * d.kh * d.kw, outputs, rows_of(b), d.bias[p], lo, hi);
      }
  }
}

void depthwise(const Depthwise& d) { d.stride == 1 ? depthwise_strided<1>(d) : depthwise_strided<2>(d); }

}  // namespace
