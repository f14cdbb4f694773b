// Pooling, in two directions: the rows of a window are joined over whole vectors of neighbouring pixels into a line, then
// columns of the line. Included by kernels.inl.

namespace {

using openwork::Window;

constexpr int kLine = 2048;  // floats of a line: it stays in the first cache, beside the rows it is made of

// What joins to nothing: padding holds it.
template <bool MAX>
constexpr float kNothing = MAX ? -std::numeric_limits<float>::infinity() : 0.0f;

template <bool MAX>
inline vec joined(vec a, vec b) {
  if constexpr (MAX)
    return maximum(a, b);
  else
    return a + b;
}

template <bool MAX>
inline float joined(float a, float b) {
  if constexpr (MAX)
    return b > a || b != b ? b : a;
  else
    return a + b;
}

// line[i] = x[i] joined with the rows below it, `step` floats apart, for i < n.
template <bool MAX>
void join_rows(const float* x, int64_t step, int rows, int n, float* line) {
  if (rows <= 0) return static_cast<void>(std::fill_n(line, n, kNothing<MAX>));
  int i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    vec all = load(x + i);
    for (int r = 1; r < rows; r++) all = joined<MAX>(all, load(x + i + r * step));
    store(line + i, all);
  }
  if (i == n) return;
  vec all = load_first(x + i, n - i);
  for (int r = 1; r < rows; r++) all = joined<MAX>(all, load_first(x + i + r * step, n - i));
  store_first(line + i, all, n - i);
}

// Outputs of one row, whose windows begin STRIDE floats apart in the line; reads up to 2 kLanes beyond the last window.
template <bool MAX, int STRIDE>
void join_columns(const float* line, const Window& p, float* y, float scale_y, const float* scale_x, int n) {
  for (int o = 0; o < n; o += kLanes) {
    const auto at = [&](int k) {
      const float* const x = line + int64_t{o} * STRIDE + int64_t{k} * p.dw;
      return STRIDE == 1 ? load(x) : evens(load(x), load(x + kLanes));
    };
    vec all = at(0);
    for (int k = 1; k < p.kw; k++) all = joined<MAX>(all, at(k));
    if constexpr (!MAX) all *= scale_y * load_first(scale_x + o, n - o);
    store_first(y + o, all, n - o);
  }
}

// The same for any stride.
template <bool MAX>
void join_columns_apart(const float* line, const Window& p, float* y, float scale_y, const float* scale_x, int n) {
  for (int o = 0; o < n; o++, line += p.sw) {
    float all = line[0];
    for (int k = 1; k < p.kw; k++) all = joined<MAX>(all, line[int64_t{k} * p.dw]);
    y[o] = MAX ? all : all * (scale_y * scale_x[o]);
  }
}

// Windows too wide for a line, pixel by pixel.
template <bool MAX>
void pool_wide(const Window& p) {
  for (int oy = 0; oy < p.out_h; oy++)
    for (int ox = 0; ox < p.out_w; ox++) {
      float all = kNothing<MAX>;
      for (int ky = 0; ky < p.kh; ky++) {
        const int y = oy * p.sh - p.ph + ky * p.dh;
        if (y < 0 || y >= p.h) continue;
        for (int kx = 0; kx < p.kw; kx++) {
          const int x = ox * p.sw - p.pw + kx * p.dw;
          if (x >= 0 && x < p.w) all = joined<MAX>(all, p.x[y * p.pitch + x]);
        }
      }
      p.y[oy * p.out_pitch + ox] = MAX ? all : all * (p.scale_y[oy] * p.scale_x[ox]);
    }
}

template <bool MAX>
void pool(const Window& p) {
  constexpr int kSlack = 2 * kLanes;
  const int64_t window = int64_t{p.kw - 1} * p.dw + 1;
  if (window > kLine / 2) return pool_wide<MAX>(p);
  const auto columns = p.sw == 1 ? join_columns<MAX, 1> : p.sw == 2 ? join_columns<MAX, 2> : join_columns_apart<MAX>;
  const int each = static_cast<int>((kLine - window) / p.sw) + 1;  // outputs whose windows fill the line
  alignas(64) float line[kLine + kSlack];
  for (int begin = 0; begin < p.out_w; begin += each) {
    const int n = std::min(each, p.out_w - begin);
    const int64_t left = int64_t{begin} * p.sw - p.pw, span = int64_t{n - 1} * p.sw + window;  // of the line, on the image's columns
    const int first = static_cast<int>(std::clamp<int64_t>(left, 0, p.w)), last = static_cast<int>(std::clamp<int64_t>(left + span, 0, p.w));
    std::fill_n(line, span + kSlack, kNothing<MAX>);  // what lies beside the image stays so for all rows
    for (int oy = 0; oy < p.out_h; oy++) {
      const int row = oy * p.sh - p.ph;  // of the window's top, perhaps above the image
      const int top = row >= 0 ? 0 : (-row + p.dh - 1) / p.dh;
      const int bottom = std::min(p.kh, row >= p.h ? 0 : (p.h - 1 - row) / p.dh + 1);
      join_rows<MAX>(p.x + (row + int64_t{top} * p.dh) * p.pitch + first, p.dh * p.pitch, bottom - top, last - first, line + (first - left));
      columns(line, p, p.y + oy * p.out_pitch + begin, MAX ? 1.0f : p.scale_y[oy], MAX ? nullptr : p.scale_x + begin, n);
    }
  }
}

}  // namespace
