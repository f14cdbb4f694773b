// The naive reference of every kernel: one scalar loop each, sums in double. Slow on purpose; the property tests run whole
// programs with this table and compare. Tiles mean nothing here, so all entries of a family share one function per shape.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "reference.hpp"

namespace openwork {
namespace {

template <int MB, int NV>
void taps(const Taps& t, int64_t q, int block_begin, int block_end) {
  for (int row = block_begin * MB; row < block_end * MB; row++)
    for (int64_t at = q; at < q + static_cast<int64_t>(NV) * kUnit; at++) {
      double sum = t.more ? t.arena_out[t.out[row] + at] : t.scale ? 0 : t.bias[row];
      for (int32_t k = t.begin[row / MB]; k < t.end[row / MB]; k++)
        sum += static_cast<double>(t.value[static_cast<int64_t>(k) * MB + row % MB]) * t.arena[t.offset[t.list[row / MB] + k] + at];
      if (t.scale) sum = sum * t.scale[row] + t.bias[row];
      if (t.residual) sum += t.arena[t.residual[row] + at];
      const bool pixel = is_pixel(t.inside, at);
      t.arena_out[t.out[row] + at] = pixel ? clamp(sum, t.lo, t.hi) : 0.0f;
    }
}

template <int WIDTH, int STEP, int ROWS, int COLUMNS>
void dense(const Dense& d, int64_t x_tile, int64_t y_tile) {
  for (int o = 0; o < d.outputs; o++)
    for (int r = 0; r < ROWS; r++)
      for (int c = 0; c < COLUMNS; c++) {
        double sum = d.bias[o];
        for (int64_t k = 0; k < d.columns; k++) sum += static_cast<double>(d.value[k * WIDTH + o]) * d.arena[d.offset[k] + x_tile + r * d.x_pitch + c * STEP];
        const int64_t pixel = y_tile + r * d.y_pitch + c;
        if (d.residual) sum += d.arena_out[d.residual[o] + pixel];
        d.arena_out[d.out[o] + pixel] = clamp(sum, d.lo, d.hi);
      }
}

// Winograd's matrices: inputs to values at the points, sums at the points to outputs.
constexpr double kA = kWinogradPoint;
constexpr double kTo2[4][4] = {{-1, 0, 1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}};
constexpr double kBack2[2][4] = {{1, 1, 1, 0}, {0, 1, -1, 1}};
constexpr double kTo4[6][6] = {{1, 0, -2.5, 0, 1, 0}, {0, -2 * kA, -2, kA, 1, 0}, {0, 2 * kA, -2, -kA, 1, 0}, {0, -kA, -0.5, 2 * kA, 1, 0}, {0, kA, -0.5, -2 * kA, 1, 0}, {0, 1, 0, -2.5, 0, 1}};
constexpr double kBack4[4][6] = {{1, 1, 1, 1, 1, 0}, {0, kA, -kA, 2 * kA, -2 * kA, 0}, {0, 0.5, 0.5, 2, 2, 0}, {0, kA / 2, -kA / 2, 4 * kA, -4 * kA, 1}};

template <int M>
void winograd_values(const WinogradTiles& t) {
  for (int64_t tile = 0; tile < t.tiles; tile++)
    for (int i = 0; i < M + 2; i++)
      for (int j = 0; j < M + 2; j++) {
        double sum = 0;
        for (int y = 0; y < M + 2 && y < t.rows; y++)
          for (int x = 0; x < M + 2 && tile * M + x < t.columns; x++)
            if (const double by = M == 2 ? kTo2[i % 4][y % 4] * kTo2[j % 4][x % 4] : kTo4[i][y] * kTo4[j][x]; by != 0) sum += by * t.x[y * t.pitch + tile * M + x];
        t.values[(i * (M + 2) + j) * t.stride + tile] = static_cast<float>(sum);
      }
}

template <int WIDTH, int TILES>
void winograd(const WinogradProduct& p) {
  for (int t = 0; t < TILES; t++)
    for (int o = 0; o < WIDTH; o++) {
      double sum = 0;
      for (int64_t c = 0; c < p.channels; c++) sum += static_cast<double>(p.x[c * p.x_stride + t]) * p.value[c * WIDTH + o];
      p.sums[t * p.sum_stride + o] = static_cast<float>(sum);
    }
}

template <int M>
bool winograd_back(float* sums, int64_t tiles, int64_t stride, int width) {
  bool finite = true;
  for (int64_t t = 0; t < tiles; t++)
    for (int o = 0; o < width; o++) {
      double found[M * M] = {};
      for (int y = 0; y < M * M; y++)
        for (int i = 0; i < (M + 2) * (M + 2); i++) {
          const int row = i / (M + 2), column = i % (M + 2);
          const double by = M == 2 ? kBack2[y / M % 2][row % 4] * kBack2[y % M % 2][column % 4] : kBack4[y / M][row] * kBack4[y % M][column];
          if (by != 0) found[y] += by * sums[t * stride + i * width + o];
        }
      for (int y = 0; y < M * M; y++) {
        sums[t * stride + y * width + o] = static_cast<float>(found[y]);
        finite &= std::isfinite(static_cast<float>(found[y]));
      }
    }
  return finite;
}

template <int M>
void winograd_store(const WinogradPixels& s) {
  for (int o = 0; o < s.outputs; o++)
    for (int64_t r = 0; r < s.rows; r++)
      for (int64_t c = 0; c < s.columns; c++) {
        const int64_t at = s.at + r * s.pitch + c;
        double sum = static_cast<double>(s.sums[c / M * s.stride + (r * M + c % M) * s.width + o]) + s.bias[o];
        if (s.residual) sum += s.arena[s.residual[o] + at];
        s.arena_out[s.out[o] + at] = clamp(sum, s.lo, s.hi);
      }
}

template <int WIDTH, int... T>
void fill_winograd(WinogradKernel* row, std::integer_sequence<int, T...>) {
  ((row[T] = winograd<WIDTH, T + 1>), ...);
}

template <int WIDTH, int SAMPLES>
void rows(const Rows& r, int64_t sample, int panel_begin, int panel_end) {
  for (int64_t n = sample; n < sample + SAMPLES; n++)
    for (int64_t o = static_cast<int64_t>(panel_begin) * WIDTH; o < static_cast<int64_t>(panel_end) * WIDTH; o++) {
      const int64_t p = o / WIDTH;
      double sum = 0;
      for (int32_t k = r.start[p]; k < r.end[p]; k++) {
        const int32_t at = r.first[p] + k - r.start[p], column = r.short_index ? r.short_index[at] : r.index ? r.index[at] : at;
        sum += static_cast<double>(r.value[static_cast<int64_t>(k) * WIDTH + o % WIDTH]) * r.x[n * r.x_stride + column];
      }
      r.y[n * r.y_stride + o] = clamp(r.bias[o] + (r.scale ? r.scale[o] : 1.0) * sum, r.lo, r.hi);
    }
}

template <int WINDOW, int SAMPLES>
void balanced(const Balanced& b, int panel_begin, int panel_end) {
  constexpr int kSlots = window_slots(WINDOW), kBits = window_bits(WINDOW);
  for (int n = 0; n < SAMPLES; n++)
    for (int64_t o = int64_t{panel_begin} * kUnit; o < std::min<int64_t>(int64_t{panel_end} * kUnit, b.outputs); o++) {
      const int64_t p = o / kUnit, lane = o % kUnit;
      double sum = b.bias[o];
      for (int32_t k = b.start[p]; k < b.start[p + 1]; k++) {
        const int32_t slot = k - b.start[p], word = b.position[(b.line[p] + slot / kSlots) * kUnit + lane];
        const int position = word >> slot % kSlots * kBits & (WINDOW - 1);
        sum += static_cast<double>(b.value[int64_t{k} * kUnit + lane]) * b.x[n * b.x_stride + WINDOW / 2 * b.begin[k] + position];
      }
      b.y[n * b.y_stride + o] = clamp(sum, b.lo, b.hi);
    }
}

void circulant_values(const Circulant&) {}  // frequencies are a short cut

bool circulant(const Circulant& c, int64_t panel) {
  const int64_t begin = panel * kUnit * c.block;
  for (int64_t o = begin; o < std::min<int64_t>(begin + kUnit * c.block, c.outputs); o++) c.y[o] = circulant_output(c, o);
  return true;
}

void depthwise(const Depthwise& of) {
  const DepthwiseImages& d = of.images;
  for (int p = 0; p < d.planes; p++)
    for (int i = 0; i < d.out_h; i++)
      for (int j = 0; j < d.out_w; j++) {
        double sum = of.bias[p];
        for (int di = 0; di < d.kh; di++)
          for (int dj = 0; dj < d.kw; dj++) {
            const int64_t row = d.row[i * d.stride + di], column = int64_t{j} * d.stride + dj - d.before;
            const bool pixel = row != DepthwiseImages::kNoRow && column >= 0 && column < d.w;
            sum += static_cast<double>(of.weight[(p * d.kh + di) * d.kw + dj]) * (pixel ? d.x[d.x_plane[p] + row + column] : 0.0f);
          }
        d.y[d.y_plane[p] + i * d.y_pitch + j] = clamp(sum, of.lo, of.hi);
      }
}

template <bool MAX>
void pool(const Window& p) {
  for (int oy = 0; oy < p.out_h; oy++)
    for (int ox = 0; ox < p.out_w; ox++) {
      float best = -std::numeric_limits<float>::infinity();
      double sum = 0;
      for (int ky = 0; ky < p.kh; ky++)
        for (int kx = 0; kx < p.kw; kx++) {
          const int y = oy * p.sh - p.ph + ky * p.dh, x = ox * p.sw - p.pw + kx * p.dw;
          if (y < 0 || y >= p.h || x < 0 || x >= p.w) continue;
          const float v = p.x[y * p.pitch + x];
          if (v > best || v != v) best = v;
          sum += v;
        }
      p.y[oy * p.out_pitch + ox] = MAX ? best : static_cast<float>(sum * p.scale_y[oy] * p.scale_x[ox]);
    }
}

void copy_rows(const float* x, int64_t x_pitch, int64_t step, float* y, int64_t y_pitch, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < n; i++) y[r * y_pitch + i] = x[r * x_pitch + i * step];
}

void interleave(const float* const* rows, int factor, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = rows[i % factor][i / factor];
}

void widen(const float* x, const int32_t* at, const int32_t* next, const float* share, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = static_cast<float>((1.0 - share[i]) * x[at[i]] + static_cast<double>(share[i]) * x[next[i]]);
}

void mix(const float* a, const float* b, float share, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = static_cast<float>((1.0 - share) * a[i] + static_cast<double>(share) * b[i]);
}

float sum(const float* x, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; i++) total += x[i];
  return static_cast<float>(total);
}

float dot(const float* x, const float* y, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; i++) total += static_cast<double>(x[i]) * y[i];
  return static_cast<float>(total);
}

void attention(const Attention& a, int64_t begin, int64_t count) {
  for (int64_t i = begin; i < begin + count; i++) {
    std::vector<double> scores(static_cast<size_t>(a.keys));
    double top = -std::numeric_limits<double>::infinity(), total = 0;
    for (int64_t j = 0; j < a.keys; j++) {
      double s = 0;
      for (int c = 0; c < a.channels; c++) s += static_cast<double>(a.arena[a.q[c] + i]) * a.arena[a.k[c] + j];
      s = s * a.scale + (a.flags ? (a.flags[j] ? a.on : a.off) : 0.0f) + (a.bias ? a.bias[j * a.bias_stride + i] : 0.0f);
      scores[static_cast<size_t>(j)] = s;
      if (s > top) top = s;
    }
    for (double& s : scores) total += s = top == -std::numeric_limits<double>::infinity() && s == s ? 0 : std::exp(s - top);
    for (int c = 0; c < a.channels; c++) {
      double sum = 0;
      for (int64_t j = 0; j < a.keys; j++) sum += scores[static_cast<size_t>(j)] * a.arena[a.v[c] + j];
      a.arena_out[a.out[c] + i] = total == 0 ? 0.0f : static_cast<float>(sum / total);
    }
  }
}

void layer_norm(const Norm& n, int64_t unit_begin, int64_t unit_end) {
  for (int64_t q = unit_begin * kUnit; q < unit_end * kUnit; q++) {
    double mean = 0, square = 0;
    for (int c = 0; c < n.channels; c++) mean += n.arena[n.x[c] + q] / static_cast<double>(n.channels);
    for (int c = 0; c < n.channels; c++) square += (n.arena[n.x[c] + q] - mean) * (n.arena[n.x[c] + q] - mean);
    const double scale = 1 / std::sqrt(square / n.channels + n.eps);
    const bool pixel = is_pixel(n.inside, q);
    std::vector<float> y;
    for (int c = 0; c < n.channels; c++) y.push_back(pixel ? static_cast<float>((n.arena[n.x[c] + q] - mean) * scale * n.weight[c] + n.bias[c]) : 0.0f);
    if (n.y)
      for (int c = 0; c < n.channels; c++) n.arena_out[n.y[c] + q] = y[static_cast<size_t>(c)];
    if (!n.quads) continue;
    float inverse = n.inverse;
    if (n.token >= 0) {
      float most = 0;
      for (float v : y) most = std::isnan(v) || std::fabs(v) > most ? std::fabs(v) : most;
      const float token = token_scale(most, n.hi);
      inverse = 1 / token;
      n.arena_out[n.token + q] = pixel ? token : 0.0f;
    }
    for (int c = 0; c < n.channels; c += kQuad) {
      uint32_t quad = 0;
      for (int i = 0; i < kQuad && c + i < n.channels && pixel; i++)
        quad |= (static_cast<uint32_t>(rounded(y[static_cast<size_t>(c + i)] * inverse, n.lo, n.hi)) & 255) << (8 * i);
      std::memcpy(&n.arena_out[n.quads[c / kQuad] + q], &quad, sizeof quad);
    }
  }
}

namespace act {

double clamp(double x, const float* p) { return openwork::clamp(x, p[0], p[1]); }
double leaky_relu(double x, const float* p) { return x > 0 ? x : x * p[0]; }
double elu(double x, const float* p) { return x > 0 ? p[1] * x : double{p[1]} * p[0] * std::expm1(p[2] * x); }
double sigmoid(double x, const float*) { return 1 / (1 + std::exp(-x)); }
double tanh(double x, const float*) { return std::tanh(x); }
double silu(double x, const float*) { return x / (1 + std::exp(-x)); }
double erf(double x, const float*) { return std::erf(x); }
double gelu(double x, const float*) { return 0.5 * x * std::erfc(-x * std::sqrt(0.5)); }
double gelu_tanh(double x, const float*) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x))); }
double hardswish(double x, const float*) { return x * std::fmin(std::fmax(x + 3, 0), 6) / 6; }
double mish(double x, const float*) { return x * std::tanh(std::log1p(std::exp(x))); }
double softplus(double x, const float* p) { return x * p[0] > p[1] ? x : std::log1p(std::exp(x * p[0])) / p[0]; }
double exp(double x, const float*) { return std::exp(x); }
double abs(double x, const float*) { return std::fabs(x); }
double square(double x, const float*) { return x * x; }
double sqrt(double x, const float*) { return std::sqrt(x); }
double rsqrt(double x, const float*) { return 1 / std::sqrt(x); }
double reciprocal(double x, const float*) { return 1 / x; }

}  // namespace act

namespace bin {

double add(double a, double b) { return a + b; }
double sub(double a, double b) { return a - b; }
double mul(double a, double b) { return a * b; }
double div(double a, double b) { return a / b; }
double maximum(double a, double b) { return a > b || a != a ? a : b; }
double minimum(double a, double b) { return a < b || a != a ? a : b; }

}  // namespace bin

template <double (*F)(double, double), bool ONE>
void binary(const Binary& p) {
  for (int64_t i = 0; i < p.n; i++) {
    const int64_t at = p.q + i;
    const bool pixel = is_pixel(p.inside, at);
    p.y[i] = pixel ? static_cast<float>(F(p.a[i], ONE ? *p.b : p.b[i])) : 0.0f;
  }
}

template <double (*F)(double, const float*)>
void activate(const Activate& a) {
  for (int64_t i = 0; i < a.n; i++) {
    const int64_t at = a.q + i;
    const bool pixel = !a.inside || is_pixel(a.inside, at);
    a.y[i] = pixel ? static_cast<float>(F(a.x[i], a.parameters)) : 0.0f;
  }
}

void scale(const float* x, const float* weight, const float* bias, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = static_cast<float>(static_cast<double>(weight[i]) * x[i] + bias[i]);
}

double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

template <Cell CELL>
void gates(const Gates& g) {
  for (int64_t i = 0; i < g.units; i++) {
    const auto x = [&](int64_t gate) -> double { return g.x[gate * g.gate + i]; };
    const auto u = [&](int64_t gate) -> double { return g.u[gate * g.gate + i]; };
    double next;
    if (CELL == Cell::gru) {
      const double r = sigmoid(x(0) + u(0)), z = sigmoid(x(1) + u(1)), n = std::tanh(x(2) + r * u(2));
      next = (1 - z) * n + z * g.h[i];
    } else if (CELL == Cell::lstm) {
      const double c = sigmoid(x(1) + u(1)) * g.c[i] + sigmoid(x(0) + u(0)) * std::tanh(x(2) + u(2));
      g.c[i] = static_cast<float>(c);
      next = sigmoid(x(3) + u(3)) * std::tanh(c);
    } else if (CELL == Cell::tanh) {
      next = std::tanh(x(0) + u(0));
    } else {
      next = clamp(x(0) + u(0), 0, std::numeric_limits<float>::infinity());
    }
    g.next[i] = static_cast<float>(next);
  }
}

void gather(const float* x, const int32_t* index, float* y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = x[index[i]];
}

double fma_peak(int64_t) { return 0; }

template <int MB, int... NV>
void fill_taps(TapsKernel* row, std::integer_sequence<int, NV...>) {
  ((row[NV] = taps<MB, NV + 1>), ...);
}

template <int WIDTH, int STEP, int ROWS, int... C>
void fill_dense_row(DenseKernel* row, std::integer_sequence<int, C...>) {
  ((row[C] = dense<WIDTH, STEP, ROWS, C + 1>), ...);
}

template <int WIDTH, int STEP>
void fill_dense(DenseKernel (*rows)[kMaxColumns]) {
  fill_dense_row<WIDTH, STEP, 1>(rows[0], std::make_integer_sequence<int, kMaxColumns>());
  fill_dense_row<WIDTH, STEP, 2>(rows[1], std::make_integer_sequence<int, kMaxColumns>());
  fill_dense_row<WIDTH, STEP, 3>(rows[2], std::make_integer_sequence<int, kMaxColumns>());
}

template <int WIDTH, int... S>
void fill_rows(RowsKernel* row, std::integer_sequence<int, S...>) {
  ((row[S] = rows<WIDTH, S + 1>), ...);
}

template <int WINDOW, int... S>
void fill_balanced(BalancedKernel* row, std::integer_sequence<int, S...>) {
  ((row[S] = balanced<WINDOW, S + 1>), ...);
}

}  // namespace

float circulant_output(const Circulant& c, int64_t output) {
  double sum = c.bias[output];
  for (int64_t k = 0; k < c.features; k++) {
    const int64_t block = output / c.block * c.inputs + k / c.block, diagonal = (output - k) & (c.block - 1);
    sum += static_cast<double>(c.first[block * c.block + diagonal]) * c.x[k];
  }
  return clamp(sum, c.lo, c.hi);
}

const Kernels& reference_kernels() {
  static const Kernels kernels = [] {
    Kernels k = {};
    k.name = "reference";
    k.lanes = kUnit;
    fill_taps<1>(k.taps[0], std::make_integer_sequence<int, kMaxVectors>());
    fill_taps<2>(k.taps[1], std::make_integer_sequence<int, kMaxVectors>());
    fill_taps<4>(k.taps[2], std::make_integer_sequence<int, kMaxVectors>());
    fill_taps<8>(k.taps[3], std::make_integer_sequence<int, kMaxVectors>());
    fill_dense<16, 1>(k.dense[0][0]);
    fill_dense<16, 2>(k.dense[0][1]);
    fill_dense<32, 1>(k.dense[1][0]);
    fill_dense<32, 2>(k.dense[1][1]);
    fill_winograd<16>(k.winograd[0], std::make_integer_sequence<int, kMaxColumns>());
    fill_winograd<32>(k.winograd[1], std::make_integer_sequence<int, kMaxColumns>());
    k.winograd_values[0] = winograd_values<2>;
    k.winograd_values[1] = winograd_values<4>;
    k.winograd_back[0] = winograd_back<2>;
    k.winograd_back[1] = winograd_back<4>;
    k.winograd_store[0] = winograd_store<2>;
    k.winograd_store[1] = winograd_store<4>;
    fill_rows<1>(k.rows[0], std::make_integer_sequence<int, kMaxSamples>());
    fill_rows<2>(k.rows[1], std::make_integer_sequence<int, kMaxSamples>());
    fill_rows<4>(k.rows[2], std::make_integer_sequence<int, kMaxSamples>());
    fill_rows<8>(k.rows[3], std::make_integer_sequence<int, kMaxSamples>());
    fill_rows<16>(k.rows[4], std::make_integer_sequence<int, kMaxSamples>());
    fill_rows<32>(k.rows[5], std::make_integer_sequence<int, kMaxSamples>());
    fill_rows<64>(k.rows[6], std::make_integer_sequence<int, kMaxSamples>());
    fill_balanced<kWindows[0]>(k.balanced[0], std::make_integer_sequence<int, kMaxSamples>());
    fill_balanced<kWindows[1]>(k.balanced[1], std::make_integer_sequence<int, kMaxSamples>());
    fill_balanced<kWindows[2]>(k.balanced[2], std::make_integer_sequence<int, kMaxSamples>());
    k.circulant_values = circulant_values;
    k.circulant = circulant;
    ActivateKernel* next = k.activate;
#define OW_FILL(name, parameters) *next++ = activate<act::name>;
    OW_ACTIVATIONS(OW_FILL)
#undef OW_FILL
    int function = 0;
#define OW_FILL(name)                            \
  k.binary[function][0] = binary<bin::name, false>; \
  k.binary[function++][1] = binary<bin::name, true>;
    OW_BINARIES(OW_FILL)
#undef OW_FILL
    k.scale = scale;
    k.max_pool = pool<true>;
    k.sum_pool = pool<false>;
    k.depthwise = depthwise;
    k.copy_rows = copy_rows;
    k.interleave = interleave;
    k.widen = widen;
    k.mix = mix;
    k.sum = sum;
    k.dot = dot;
    k.gates[0] = gates<Cell::gru>;
    k.gates[1] = gates<Cell::lstm>;
    k.gates[2] = gates<Cell::tanh>;
    k.gates[3] = gates<Cell::relu>;
    k.gather = gather;
    k.attention = attention;
    k.layer_norm = layer_norm;
    k.fma_peak = fma_peak;
    fill_reference(k.quads);
    return k;
  }();
  return kernels;
}

}  // namespace openwork
