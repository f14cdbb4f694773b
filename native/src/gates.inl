// The elementwise half of a recurrent step; formulas as PyTorch documents them for nn.GRU, nn.LSTM and nn.RNN.

namespace {

using openwork::Cell;
using openwork::Gates;

// One vector of units, `i` floats into the stretch.
template <Cell CELL>
inline void gates_at(const Gates& g, int64_t i) {
  const auto gate = [&](int64_t which) { return load(g.x + which * g.gate + i) + load(g.u + which * g.gate + i); };
  vec next;
  if constexpr (CELL == Cell::gru) {
    const vec r = sigmoid(gate(0)), z = sigmoid(gate(1));
    const vec n = tanh(load(g.x + 2 * g.gate + i) + r * load(g.u + 2 * g.gate + i));
    next = n + z * (load(g.h + i) - n);
  } else if constexpr (CELL == Cell::lstm) {
    const vec in = sigmoid(gate(0)), forget = sigmoid(gate(1)), candidate = tanh(gate(2)), out = sigmoid(gate(3));
    const vec c = forget * load(g.c + i) + in * candidate;
    store(g.c + i, c);
    next = out * tanh(c);
  } else if constexpr (CELL == Cell::tanh) {
    next = tanh(gate(0));
  } else {
    next = clamp(gate(0), vec{}, splat(std::numeric_limits<float>::infinity()));
  }
  store(g.next + i, next);
}

template <Cell CELL>
void gates_f32(const Gates& g) {
  for (int64_t i = 0; i < g.units; i += kLanes) gates_at<CELL>(g, i);
}

void gather(const float* x, const int32_t* index, float* y, int64_t n) {
  int64_t i = 0;
#if OW_LANES == 16 && defined(__AVX512F__)
  for (; i + 16 <= n; i += 16) store(y + i, (vec)_mm512_i32gather_ps(_mm512_loadu_si512(index + i), x, 4));
#endif
  for (; i < n; i++) y[i] = x[index[i]];
}

}  // namespace
