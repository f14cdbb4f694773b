// Fully connected layers in panels narrower than a vector: its lanes are columns times WIDTH outputs, added up over the columns
// at the end. Few outputs share columns, so a layer with scattered zeros reads hardly more than its weights. Included by
// kernels.inl.

namespace {

// kLanes columns, or the first n of them: acc[s] += value[column, output] * x[s, index[column]].
template <int WIDTH, int SAMPLES, int CHAINS, bool ALL, class Index, int... V>
inline void add_columns(vec (&acc)[SAMPLES][CHAINS], const Rows& r, const float* x, const Index* index, const float* w, int n,
                        std::integer_sequence<int, V...>) {
  constexpr auto lanes = std::make_index_sequence<kLanes>();
  const vec ws[WIDTH] = {(ALL ? load(w + V * kLanes) : load_first(w + V * kLanes, n * WIDTH - V * kLanes))...};
#pragma GCC unroll 8
  for (int s = 0; s < SAMPLES; s++) {
    const float* const from = x + s * r.x_stride;
    const vec xs = ALL ? gathered(from, index) : gathered_first(from, index, n);
    ((acc[s][V % CHAINS] += spread<WIDTH, V>(xs, lanes) * ws[V]), ...);
  }
}

template <int WIDTH, int SAMPLES, class Index>
void narrow_panels(const Rows& r, const Index* columns, int64_t sample, int panel_begin, int panel_end) {
  constexpr int CHAINS = SAMPLES > 2 ? 1 : std::min(WIDTH, 4);
  constexpr auto vectors = std::make_integer_sequence<int, WIDTH>();
  const float* const x = r.x + sample * r.x_stride;
  for (int p = panel_begin; p < panel_end; p++) {
    vec acc[SAMPLES][CHAINS] = {};
    int left = r.end[p] - r.start[p];
    const Index* index = columns + r.first[p];
    const float* w = r.value + static_cast<int64_t>(r.start[p]) * WIDTH;
    for (; left >= kLanes; left -= kLanes, index += kLanes, w += kLanes * WIDTH) {
      for (int i = 0; i < kLanes * WIDTH; i += 16) __builtin_prefetch(w + kWeightsAhead + i, 0, 2);
      __builtin_prefetch(index + kWeightsAhead / WIDTH, 0, 2);
      add_columns<WIDTH, SAMPLES, CHAINS, true>(acc, r, x, index, w, kLanes, vectors);
    }
    if (left) add_columns<WIDTH, SAMPLES, CHAINS, false>(acc, r, x, index, w, left, vectors);
    for (int s = 0; s < SAMPLES; s++) {
      vec sum = acc[s][0];
      for (int c = 1; c < CHAINS; c++) sum += acc[s][c];
      const int64_t o = static_cast<int64_t>(p) * WIDTH;
      sum = folded<WIDTH>(sum);
      if (r.scale) sum = sum * load_first(r.scale + o, WIDTH);
      sum = sum + load_first(r.bias + o, WIDTH);
      store_first(r.y + (sample + s) * r.y_stride + o, clamp(sum, splat(r.lo), splat(r.hi)), WIDTH);
    }
  }
}

}  // namespace
