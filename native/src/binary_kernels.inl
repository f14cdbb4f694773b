// Functions of two values over a stretch of positions. Included by kernels.inl, after activations.inl.

namespace {

inline vec bin_add(vec a, vec b) { return a + b; }
inline vec bin_sub(vec a, vec b) { return a - b; }
inline vec bin_mul(vec a, vec b) { return a * b; }
inline vec bin_div(vec a, vec b) { return a / b; }
// NaN wins on either side, as in PyTorch: a comparison with it is false.
inline vec bin_maximum(vec a, vec b) { return ((a > b) | (a != a)) ? a : b; }
inline vec bin_minimum(vec a, vec b) { return ((a < b) | (a != a)) ? a : b; }

// ONE: b is a single number. The last vector may be short, and nothing beyond it is read or written.
template <vec (*F)(vec, vec), bool ONE>
void binary(const openwork::Binary& p) {
  const vec one = splat(*p.b);
  int64_t i = 0;
  for (; i + kLanes <= p.n; i += kLanes) store(p.y + i, keep(F(load(p.a + i), ONE ? one : load(p.b + i)), pixels(p.inside, p.q + i)));
  if (i == p.n) return;
  const size_t rest = sizeof(float) * static_cast<size_t>(p.n - i);
  vec a = {}, b = one;
  __builtin_memcpy(&a, p.a + i, rest);
  if (!ONE) __builtin_memcpy(&b, p.b + i, rest);
  const vec y = keep(F(a, b), pixels(p.inside, p.q + i, p.n - i));
  __builtin_memcpy(p.y + i, &y, rest);
}

void fill_binaries(openwork::BinaryKernel (*table)[2]) {
  int next = 0;
#define OW_FILL(name)                         \
  table[next][0] = binary<bin_##name, false>; \
  table[next++][1] = binary<bin_##name, true>;
  OW_BINARIES(OW_FILL)
#undef OW_FILL
}

}  // namespace
