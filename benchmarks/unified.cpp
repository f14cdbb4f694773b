// Whether a kernel that multiplies once for each unified block beats multiply-adds: one sample through a square layer in 16 x 16
// blocks of one magnitude, lanes over outputs.
//
//   g++ -O3 -march=native -o /tmp/unified benchmarks/unified.cpp && /tmp/unified

#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

constexpr int kLanes = 16, kBlock = 16, kChains = 4;

// weight: [panels of 64][columns][64], as the engine has it: a broadcast input serves four vectors.
void dense(const float* weight, const float* x, float* y, int size) {
  for (int p = 0; p < size / (4 * kLanes); p++) {
    __m512 sum[2][4] = {};
    for (int k = 0; k < size; k += 2)
      for (int h = 0; h < 2; h++) {
        const __m512 input = _mm512_set1_ps(x[k + h]);
        for (int v = 0; v < 4; v++, weight += kLanes) {
          _mm_prefetch(reinterpret_cast<const char*>(weight + 1024), _MM_HINT_T1);
          sum[h][v] = _mm512_fmadd_ps(input, _mm512_loadu_ps(weight), sum[h][v]);
        }
      }
    for (int v = 0; v < 4; v++) _mm512_storeu_ps(y + (4 * p + v) * kLanes, sum[0][v] + sum[1][v]);
  }
}

// A signed sum is that of all inputs, minus twice those under negative weights: an addition for each 16 weights, whose signs are
// 16 bits. signs: [panels][columns], magnitude: [panels][columns / 16]; total: of the inputs of each block
void unified(const uint16_t* signs, const float* magnitude, const float* twice, const float* total, float* y, int size) {
  for (int p = 0; p < size / kLanes; p++) {
    __m512 sum[2] = {};
    for (int b = 0; b < size / kBlock; b++, signs += kBlock) {
      __m512 part[kChains] = {_mm512_set1_ps(total[b])};
      for (int k = 0; k < kBlock; k += kChains)
        for (int c = 0; c < kChains; c++) part[c] = _mm512_mask_sub_ps(part[c], signs[k + c], part[c], _mm512_set1_ps(twice[b * kBlock + k + c]));
      sum[b % 2] = _mm512_fmadd_ps(_mm512_set1_ps(*magnitude++), (part[0] + part[1]) + (part[2] + part[3]), sum[b % 2]);
    }
    _mm512_storeu_ps(y + p * kLanes, sum[0] + sum[1]);
  }
}

template <class F>
double microseconds(const F& run) {
  double best = 1e9;
  for (int i = 0; i < 200; i++) {
    const auto begin = std::chrono::steady_clock::now();
    run();
    best = std::min(best, std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

int main() {
  for (int size : {128, 256, 512, 1024, 2048}) {
    float* const weight = static_cast<float*>(std::aligned_alloc(64, sizeof(float) * size * size));
    std::vector<float> x(size), y(size), z(size), twice(size), total(size / kBlock), magnitude(size_t(size) * size / 256);
    std::vector<uint16_t> signs(size_t(size) * size / kLanes);
    uint32_t state = 1;
    const auto random = [&] { return state = state * 1664525 + 1013904223, state >> 16; };
    for (float& v : x) v = random() / 65536.0f - 0.5f;
    for (float& v : magnitude) v = random() / 65536.0f;
    for (uint16_t& v : signs) v = uint16_t(random());
    for (int o = 0; o < size; o++)
      for (int k = 0; k < size; k++) {
        const int p = o / kLanes, l = o % kLanes;
        const float m = magnitude[(size_t(p) * size + k) / kBlock];
        weight[(size_t(o / 64) * size + k) * 64 + o % 64] = signs[size_t(p) * size + k] >> l & 1 ? -m : m;
      }
    const double plain = microseconds([&] { dense(weight, x.data(), y.data(), size); });
    const double once = microseconds([&] {
      std::fill(total.begin(), total.end(), 0.0f);
      for (int k = 0; k < size; k++) twice[k] = 2 * x[k], total[k / kBlock] += x[k];
      unified(signs.data(), magnitude.data(), twice.data(), total.data(), z.data(), size);
    });
    float worst = 0;
    for (int o = 0; o < size; o++) worst = std::max(worst, std::fabs(y[o] - z[o]));
    std::printf("%4d x %4d: dense %7.2f us, multiplied once a block %7.2f us, %.2f times (largest difference %.1e)\n", size, size, plain, once, plain / once, worst);
    std::free(weight);
  }
}
