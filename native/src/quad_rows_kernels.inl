// Fully connected layers over few samples in 8 bits: a column is a quad of inputs, and lanes run over outputs, or over columns times
// the outputs of a narrow panel, as in narrow_rows.inl. Included by quad_kernels.inl.

#include <algorithm>
#include <bit>
#include <utility>

namespace {

using openwork::QuadRows;

float largest_magnitude(const float* x, int64_t n) {
  ivec found = {};
  for (int64_t i = 0; i < n; i += kLanes) found = larger_magnitude(found, load_first(x + i, n - i));
  int32_t most = 0;
  for (int i = 0; i < kLanes; i++) most = std::max<int32_t>(most, found[i]);
  return std::bit_cast<float>(most);
}

// Bytes of floats x, with zeros up to a whole quad; ready for dot products, so moved by 128 where those take the other kind of bytes.
template <bool SIGNED>
void quantize_row(const openwork::QuantizeRow& q) {
  typedef int8_t bytes __attribute__((vector_size(OW_LANES)));
  const vec inverse = splat(q.inverse), lo = splat(q.lo), hi = splat(q.hi);
  for (int64_t i = 0; i < q.n; i += kLanes) {
    const ivec k = rounded(load_first(q.x + i, q.n - i) * inverse, lo, hi);
    const bytes found = __builtin_convertvector(SIGNED == kUnsignedQuads ? k ^ 128 : k, bytes);
    std::memcpy(reinterpret_cast<char*>(q.y) + i, &found, sizeof found);
  }
}

// One sample alone would leave one chain of dependent sums for each vector of a panel's outputs, so columns are summed in parts.
template <int WIDTH, int SAMPLES, class Columns>
void quad_panels(const QuadRows& r, Columns columns, int64_t sample, int panel_begin, int panel_end) {
  constexpr int NV = WIDTH / kLanes, kChains = SAMPLES * NV;
  constexpr int PARTS = kChains == 1 ? 8 : kChains == 2 ? 4 : kChains <= 4 ? 2 : 1;
  const vec lo = splat(r.lo), hi = splat(r.hi);
  const int32_t* const x = r.x + sample * r.x_stride;
  for (int p = panel_begin; p < panel_end; p++) {
    const int64_t outputs = int64_t{p} * WIDTH;
    ivec sums[PARTS][SAMPLES][NV] = {};
    for (int s = 0; s < SAMPLES; s++)
      for (int v = 0; v < NV; v++) sums[0][s][v] = load_quads(r.sum + outputs + v * kLanes);
    int32_t k = r.start[p];
    const int32_t end = r.start[p + 1];
    const int64_t shift = int64_t{r.first[p]} - k;  // from a column's place in the panel to its place in the list
    const auto column = [&](int32_t at, int h) __attribute__((always_inline)) {
      const int32_t* const w = r.value + int64_t{at} * WIDTH;
      int64_t number = shift + at;
      if constexpr (!std::is_null_pointer_v<Columns>) number = columns[number];
      QuadWeights ws[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) ws[v] = as_weights(load_quads(w + v * kLanes));
#pragma GCC unroll 8
      for (int s = 0; s < SAMPLES; s++) {
        const QuadValues xs = as_values(splat_quad(x[s * r.x_stride + number]));
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) sums[h][s][v] = dot(sums[h][s][v], xs, ws[v]);
      }
    };
    for (; k + PARTS <= end; k += PARTS)
#pragma GCC unroll 8
      for (int h = 0; h < PARTS; h++) column(k + h, h);
    for (; k < end; k++) column(k, 0);
    for (int s = 0; s < SAMPLES; s++) {
      const vec token = splat(r.token[sample + s]);
      for (int v = 0; v < NV; v++) {
        uvec sum = (uvec)sums[0][s][v];
        for (int h = 1; h < PARTS; h++) sum += (uvec)sums[h][s][v];
        const int64_t o = outputs + v * kLanes;
        store(r.y + (sample + s) * r.y_stride + o, clamp(fused(to_float((ivec)sum) * token, load(r.scale + o), load(r.bias + o)), lo, hi));
      }
    }
  }
}

constexpr int kQuadsAhead = 1024;  // words of weights that are fetched before their turn

// kLanes columns, or the first n of them: acc[s] += the products of value[column, output] and x[s, index[column]].
template <int WIDTH, int SAMPLES, int CHAINS, bool ALL, class Index, int... V>
inline void add_quad_columns(ivec (&acc)[SAMPLES][CHAINS], const QuadRows& r, const int32_t* x, const Index* index, const int32_t* w, int n,
                             std::integer_sequence<int, V...>) {
  constexpr auto lanes = std::make_index_sequence<kLanes>();
  const auto word = [&](int v) { return ALL ? load_quads(w + v * kLanes) : (ivec)load_first(reinterpret_cast<const float*>(w + v * kLanes), n * WIDTH - v * kLanes); };
  const QuadWeights ws[WIDTH] = {as_weights(word(V))...};
#pragma GCC unroll 8
  for (int s = 0; s < SAMPLES; s++) {
    const float* const from = reinterpret_cast<const float*>(x + s * r.x_stride);  // bits are moved, never computed with
    const ivec xs = (ivec)(ALL ? gathered(from, index) : gathered_first(from, index, n));
    ((acc[s][V % CHAINS] = dot(acc[s][V % CHAINS], as_values(spread<WIDTH, V>(xs, lanes)), ws[V])), ...);
  }
}

template <int WIDTH, int SAMPLES, class Index>
void narrow_quad_panels(const QuadRows& r, const Index* columns, int64_t sample, int panel_begin, int panel_end) {
  constexpr int CHAINS = SAMPLES > 2 ? 1 : std::min(WIDTH, 4);
  constexpr auto vectors = std::make_integer_sequence<int, WIDTH>();
  const int32_t* const x = r.x + sample * r.x_stride;
  for (int p = panel_begin; p < panel_end; p++) {
    ivec acc[SAMPLES][CHAINS] = {};
    int left = r.start[p + 1] - r.start[p];
    const Index* index = columns + r.first[p];
    const int32_t* w = r.value + static_cast<int64_t>(r.start[p]) * WIDTH;
    for (; left >= kLanes; left -= kLanes, index += kLanes, w += kLanes * WIDTH) {
      for (int i = 0; i < kLanes * WIDTH; i += 16) __builtin_prefetch(w + kQuadsAhead + i, 0, 2);
      __builtin_prefetch(index + kQuadsAhead / WIDTH, 0, 2);
      add_quad_columns<WIDTH, SAMPLES, CHAINS, true>(acc, r, x, index, w, kLanes, vectors);
    }
    if (left) add_quad_columns<WIDTH, SAMPLES, CHAINS, false>(acc, r, x, index, w, left, vectors);
    const int64_t o = static_cast<int64_t>(p) * WIDTH;
    const auto first = [](const auto* of) { return load_first(reinterpret_cast<const float*>(of), WIDTH); };
    for (int s = 0; s < SAMPLES; s++) {
      uvec sum = (uvec)acc[s][0];
      for (int c = 1; c < CHAINS; c++) sum += (uvec)acc[s][c];
      sum = folded<WIDTH>(sum) + (uvec)first(r.sum + o);
      const vec y = fused(to_float((ivec)sum) * splat(r.token[sample + s]), first(r.scale + o), first(r.bias + o));
      store_first(r.y + (sample + s) * r.y_stride + o, clamp(y, splat(r.lo), splat(r.hi)), WIDTH);
    }
  }
}

template <int WIDTH, int SAMPLES>
void quad_rows(const QuadRows& r, int64_t sample, int panel_begin, int panel_end) {
  if constexpr (WIDTH < kLanes) {
    if (r.short_index)
      narrow_quad_panels<WIDTH, SAMPLES>(r, r.short_index, sample, panel_begin, panel_end);
    else
      narrow_quad_panels<WIDTH, SAMPLES>(r, r.index, sample, panel_begin, panel_end);
  } else if (r.short_index) {
    quad_panels<WIDTH, SAMPLES>(r, r.short_index, sample, panel_begin, panel_end);
  } else if (r.index) {
    quad_panels<WIDTH, SAMPLES>(r, r.index, sample, panel_begin, panel_end);
  } else {
    quad_panels<WIDTH, SAMPLES>(r, nullptr, sample, panel_begin, panel_end);
  }
}

template <int WIDTH, int... S>
void fill_quad_rows(openwork::QuadRowsKernel* row, std::integer_sequence<int, S...>) {
  ((row[S] = quad_rows<WIDTH, S + 1>), ...);
}

}  // namespace
