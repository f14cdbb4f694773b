// Pooling of quads: its pixels lie as those of floats do, and only how they are joined differs. Included by quad_kernels.inl.

#include "pool_kernels.inl"

namespace {

template <bool SIGNED>
struct MaximumBytes {
  static constexpr float kNothing = std::bit_cast<float>(SIGNED ? 0x80808080u : 0u);
  static vec joined(vec a, vec b) { return (vec)maximum_bytes<SIGNED>((ivec)a, (ivec)b); }
  static float joined(float a, float b) {
    const uint32_t x = std::bit_cast<uint32_t>(a), y = std::bit_cast<uint32_t>(b), flip = SIGNED ? 0x80808080u : 0u;
    uint32_t found = 0;
    for (uint32_t byte = 0xff; byte; byte <<= 8) found |= ((x ^ flip) & byte) > ((y ^ flip) & byte) ? x & byte : y & byte;
    return std::bit_cast<float>(found);
  }
};

}  // namespace
