// Kernels over rows of images. Included by kernels.inl, which has short vectors.

namespace {

// y[j * FACTOR + b] = rows[b][j] for j * FACTOR + b < n
template <int FACTOR>
void interleave_by(const float* const* rows, float* y, int64_t n) {
  int64_t j = 0;
  if constexpr (FACTOR == 2 || FACTOR == 4) {
    using four = Short<4>::type;
    using loose = Short<4>::unaligned;
    for (; (j + 4) * FACTOR <= n; j += 4) {
      four x[FACTOR];
      for (int b = 0; b < FACTOR; b++) x[b] = *reinterpret_cast<const loose*>(rows[b] + j);
      loose* const to = reinterpret_cast<loose*>(y + j * FACTOR);
      if constexpr (FACTOR == 2) {
        to[0] = __builtin_shufflevector(x[0], x[1], 0, 4, 1, 5);
        to[1] = __builtin_shufflevector(x[0], x[1], 2, 6, 3, 7);
      } else {
        const four low = __builtin_shufflevector(x[0], x[2], 0, 4, 1, 5), high = __builtin_shufflevector(x[0], x[2], 2, 6, 3, 7);
        const four low2 = __builtin_shufflevector(x[1], x[3], 0, 4, 1, 5), high2 = __builtin_shufflevector(x[1], x[3], 2, 6, 3, 7);
        to[0] = __builtin_shufflevector(low, low2, 0, 4, 1, 5);
        to[1] = __builtin_shufflevector(low, low2, 2, 6, 3, 7);
        to[2] = __builtin_shufflevector(high, high2, 0, 4, 1, 5);
        to[3] = __builtin_shufflevector(high, high2, 2, 6, 3, 7);
      }
    }
  }
  for (; (j + 1) * FACTOR <= n; j++)
    for (int b = 0; b < FACTOR; b++) y[j * FACTOR + b] = rows[b][j];
  for (int b = 0; j * FACTOR + b < n; b++) y[j * FACTOR + b] = rows[b][j];
}

void interleave(const float* const* rows, int factor, float* y, int64_t n) {
  switch (factor) {
    case 1: std::memmove(y, rows[0], sizeof(float) * static_cast<size_t>(n)); return;
    case 2: return interleave_by<2>(rows, y, n);
    case 3: return interleave_by<3>(rows, y, n);
    case 4: return interleave_by<4>(rows, y, n);
    default:
      for (int64_t i = 0; i < n; i++) y[i] = rows[i % factor][i / factor];
  }
}

void widen(const float* __restrict x, const int32_t* at, const int32_t* next, const float* share, float* __restrict y, int64_t n) {
  for (int64_t i = 0; i < n; i++) y[i] = (1.0f - share[i]) * x[at[i]] + share[i] * x[next[i]];
}

void mix(const float* a, const float* b, float share, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load(a + i) * (1.0f - share) + load(b + i) * share);
  for (; i < n; i++) y[i] = a[i] * (1.0f - share) + b[i] * share;
}

}  // namespace
