// Fully connected layers over few samples in 8 bits: lanes run over outputs, a column is a quad of inputs. Included by quad_kernels.inl.

namespace {

using openwork::QuadRows;

float largest_magnitude(const float* x, int64_t n) {
  vec found = {};
  for (int64_t i = 0; i < n; i += kLanes) found = larger_magnitude(found, load_first(x + i, n - i));
  float most = 0;
  for (int i = 0; i < kLanes; i++) most = found[i] > most ? found[i] : most;
  return most;
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
template <int SAMPLES, class Columns>
void quad_panels(const QuadRows& r, Columns columns, int64_t sample, int panel_begin, int panel_end) {
  constexpr int NV = kUnit / kLanes, kChains = SAMPLES * NV;
  constexpr int PARTS = kChains == 1 ? 8 : kChains == 2 ? 4 : kChains <= 4 ? 2 : 1;
  const vec lo = splat(r.lo), hi = splat(r.hi);
  const int32_t* const x = r.x + sample * r.x_stride;
  for (int p = panel_begin; p < panel_end; p++) {
    const int64_t outputs = int64_t{p} * kUnit;
    ivec sums[PARTS][SAMPLES][NV] = {};
    for (int s = 0; s < SAMPLES; s++)
      for (int v = 0; v < NV; v++) sums[0][s][v] = load_quads(r.sum + outputs + v * kLanes);
    int32_t k = r.start[p];
    const int32_t end = r.start[p + 1];
    const int64_t shift = int64_t{r.first[p]} - k;  // from a column's place in the panel to its place in the list
    const auto column = [&](int32_t at, int h) __attribute__((always_inline)) {
      const int32_t* const w = r.value + int64_t{at} * kUnit;
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

template <int SAMPLES>
void quad_rows(const QuadRows& r, int64_t sample, int panel_begin, int panel_end) {
  if (r.index)
    quad_panels<SAMPLES>(r, r.index, sample, panel_begin, panel_end);
  else
    quad_panels<SAMPLES>(r, nullptr, sample, panel_begin, panel_end);
}

void fill_quad_rows(openwork::QuadRowsKernel* row) {
  row[0] = quad_rows<1>;
  row[1] = quad_rows<2>;
  row[2] = quad_rows<3>;
  row[3] = quad_rows<4>;
  row[4] = quad_rows<5>;
  row[5] = quad_rows<6>;
}

}  // namespace
