// Max pooling of quads.

#include "pooling.hpp"

namespace openwork {
namespace {

class QuadPool final : public PoolStep {
 public:
  QuadPool(const Fields& f, const Limits& limits) : PoolStep(f, limits), signed_(f.boolean("signed")) {}

  void run(const Kernels& kernels, const Context& context, int chunk) const override {
    for_windows(context, chunk, [&](const Window& window, int64_t) { kernels.quads.max_pool[signed_](window); });
  }

  std::string kernel(const Kernels& kernels) const override { return std::string("max_pool_i8_") + kernels.name; }

 private:
  bool signed_;
};

const StepKind kind("quad_pool", make<QuadPool>);

}  // namespace
}  // namespace openwork
