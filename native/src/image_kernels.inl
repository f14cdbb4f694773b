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

// A hostile program may copy onto itself: in whatever order, but inside the two rows.
void copy_row(const float* x, int64_t step, float* y, int64_t n) {
  if (step == 1) {
    std::memmove(y, x, sizeof(float) * static_cast<size_t>(n));
  } else if (step == 2) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) *reinterpret_cast<Short<8>::unaligned*>(y + i) = strided<8, 2>(x + 2 * i);
    if (i + 4 <= n) {
      *reinterpret_cast<Short<4>::unaligned*>(y + i) = strided<4, 2>(x + 2 * i);
      i += 4;
    }
    for (; i < n; i++) y[i] = x[2 * i];
  } else {
    for (int64_t i = 0; i < n; i++) y[i] = x[i * step];
  }
}

#if OW_LANES == 16 && defined(__AVX512F__)

// The first `count` lanes, if there are so many.
inline __mmask16 first_lanes(int64_t count) { return static_cast<__mmask16>((1u << std::clamp<int64_t>(count, 0, 16)) - 1); }

// A stripe of up to 16 columns down all rows: short rows, of which there are many, then cost no more than their vectors.
template <int STEP>
void copy_stripe(const float* x, int64_t x_pitch, float* y, int64_t y_pitch, int64_t rows, int64_t n) {
  const int64_t reads = STEP * (n - 1) + 1;
  const __mmask16 out = first_lanes(n), low = first_lanes(reads), high = first_lanes(reads - 16);
  const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
  for (int64_t r = 0; r < rows; r++, x += x_pitch, y += y_pitch) {
    __m512 v = _mm512_maskz_loadu_ps(low, x);
    if constexpr (STEP == 2) v = _mm512_permutex2var_ps(v, even, _mm512_maskz_loadu_ps(high, x + 16));
    _mm512_mask_storeu_ps(y, out, v);
  }
}

void copy_rows(const float* x, int64_t x_pitch, int64_t step, float* y, int64_t y_pitch, int64_t rows, int64_t n) {
  if (step > 2 || (step == 1 && n > 64))  // a long row is read from one end to the other, as it lies
    for (int64_t r = 0; r < rows; r++) copy_row(x + r * x_pitch, step, y + r * y_pitch, n);
  else
    for (int64_t i = 0; i < n; i += 16)
      (step == 1 ? copy_stripe<1> : copy_stripe<2>)(x + i * step, x_pitch, y + i, y_pitch, rows, std::min<int64_t>(16, n - i));
}

#else

void copy_rows(const float* x, int64_t x_pitch, int64_t step, float* y, int64_t y_pitch, int64_t rows, int64_t n) {
  for (int64_t r = 0; r < rows; r++) copy_row(x + r * x_pitch, step, y + r * y_pitch, n);
}

#endif

}  // namespace
