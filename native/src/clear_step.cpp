// Zeros where readers of a plane expect them, after another kind of image has lain there.

#include <algorithm>

#include "images.hpp"

namespace openwork {
namespace {

// x[plane + first[i] + j] = 0 for j < length[i]
class ClearStep final : public PlaneStep {
 public:
  ClearStep(const Fields& f, const Limits& limits)
      : PlaneStep(f.positions("planes").size(), limits.threads), planes_(f.positions("planes")), first_(f.positions("first")), length_(f.positions("length")) {
    require(!planes_.empty(), "clearing needs at least one plane");
    require(first_.size() == length_.size(), "clearing needs a length for each stretch");
    int64_t reach = 0;
    for (size_t i = 0; i < first_.size(); i++) {
      require(first_[i] >= 0 && length_[i] >= 0, "a stretch lies outside its plane");
      reach = std::max(reach, int64_t{first_[i]} + length_[i]);
    }
    require_inside(planes_, reach, limits.arena, "a plane lies outside the arena");
  }

  void run(const Kernels&, const Context& context, int chunk) const override {
    for_planes(chunk, [&](size_t c) {
      float* plane = context.arena + planes_[c];
      for (size_t i = 0; i < first_.size(); i++) {
        float* x = plane + first_[i];
        if (length_[i] == 1)
          *x = 0;  // between two lines, mostly, where a call would take longest
        else
          std::fill_n(x, length_[i], 0.0f);
      }
    });
  }

  std::string kernel(const Kernels&) const override { return "clear_f32"; }

 private:
  std::vector<int32_t> planes_, first_, length_;
};

const StepKind kind("clear", make<ClearStep>);

}  // namespace
}  // namespace openwork
