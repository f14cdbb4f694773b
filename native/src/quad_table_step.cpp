// Functions of one 8-bit value: activations between values that no layer takes along.

#include "positions.hpp"

namespace openwork {
namespace {

// y[c, q] = table[x[c, q]] for every pixel q of planes of quads on one grid; y may be x. Array "table" (uint8 [256]) holds what becomes of
// every byte, signed ones in the order of their bits.
class QuadTableStep final : public PositionStep {
 public:
  QuadTableStep(const Fields& f, const Limits& limits) : PositionStep(f, limits, f.positions("y").size()), table_(f.bytes("table")), x_(f.positions("x")), y_(f.positions("y")) {
    require(table_.size() == 256, "a table holds 256 bytes");
    require(x_.size() == y_.size(), "a table needs as many output as input planes");
    check_planes(x_);
    check_planes(y_);
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("table_i8_") + kernels.name; }

 protected:
  void run_stretch(const Kernels& kernels, float* arena, size_t plane, const Stretch& stretch) const override {
    const auto [inside, q, n] = stretch;
    kernels.quads.table({arena + x_[plane] + q, arena + y_[plane] + q, n, table_.data(), inside, q});
  }

 private:
  Held<uint8_t> table_;
  std::vector<int32_t> x_, y_;
};

const StepKind kind("quad_table", make<QuadTableStep>);

}  // namespace
}  // namespace openwork
