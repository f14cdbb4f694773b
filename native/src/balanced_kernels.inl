// Fully connected layers whose outputs each take one input of a window that lies in registers. Included by kernels.inl.

#include "kernels.hpp"
#include "vec.hpp"

namespace {

using openwork::Balanced;

// Loads are what a slot waits for, so weights are not asked for ahead: that takes 15 to 25 % longer, also where they lie far away.
template <int WINDOW, int SAMPLES>
void balanced_f32(const Balanced& b, int panel_begin, int panel_end) {
  constexpr int NV = kUnit / kLanes, BITS = openwork::window_bits(WINDOW), SLOTS = openwork::window_slots(WINDOW);
  constexpr int PARTS = NV * SAMPLES == 1 ? 4 : NV * SAMPLES < 4 ? 2 : 1;  // chains of additions that do not wait for each other
  constexpr bool UNROLLED = kLanes > 4;  // what takes lanes one by one is long enough
  const vec lo = splat(b.lo), hi = splat(b.hi);
  for (int p = panel_begin; p < panel_end; p++) {
    vec acc[PARTS][SAMPLES][NV] = {};
    const float* w = b.value + int64_t{b.start[p]} * kUnit;
    const uint16_t* begin = b.begin + b.start[p];
    const int32_t* word = b.position + int64_t{b.line[p]} * kUnit;
    const auto slot = [&](const ivec (&words)[NV], int i, int part) __attribute__((always_inline)) {
      const float* const x = b.x + WINDOW / 2 * int64_t{begin[i]};
      const float* const own = w + i * kUnit;
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) {
        const ivec at = words[v] >> (i * BITS);
        const vec ws = load(own + v * kLanes);
#pragma GCC unroll 6
        for (int s = 0; s < SAMPLES; s++) acc[part][s][v] += picked<WINDOW>(x + s * b.x_stride, at) * ws;
      }
    };
    for (int left = b.start[p + 1] - b.start[p]; left > 0; left -= SLOTS, begin += SLOTS, w += SLOTS * kUnit, word += kUnit) {
      ivec words[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; v++) words[v] = (ivec)load(reinterpret_cast<const float*>(word) + v * kLanes);
      if (UNROLLED && left >= SLOTS) {
#pragma GCC unroll 16
        for (int i = 0; i < SLOTS; i++) slot(words, i, i % PARTS);
      } else {
        for (int i = 0; i < std::min(left, SLOTS); i++) slot(words, i, 0);
      }
    }
    for (int s = 0; s < SAMPLES; s++)
      for (int v = 0; v < NV; v++) {
        vec sum = acc[0][s][v];
        for (int part = 1; part < PARTS; part++) sum += acc[part][s][v];
        const int64_t o = int64_t{p} * kUnit + v * kLanes, rest = b.outputs - o;
        store_first(b.y + s * b.y_stride + o, clamp(sum + load_first(b.bias + o, rest), lo, hi), rest);
      }
  }
}

template <int WINDOW, int... S>
void fill_balanced_of(openwork::BalancedKernel* row, std::integer_sequence<int, S...>) {
  ((row[S] = balanced_f32<WINDOW, S + 1>), ...);
}

void fill_balanced(openwork::Kernels& k) {
  constexpr auto samples = std::make_integer_sequence<int, openwork::kMaxSamples>();
  fill_balanced_of<openwork::kWindows[0]>(k.balanced[0], samples);
  fill_balanced_of<openwork::kWindows[1]>(k.balanced[1], samples);
  fill_balanced_of<openwork::kWindows[2]>(k.balanced[2], samples);
}

}  // namespace
