// Zeros where readers of a plane expect them, after another kind of image has lain there.

#include <algorithm>

#include "images.hpp"

namespace openwork {
namespace {

// x[plane + first[i] + j] = 0 for j < length[i]
class ClearStep final : public Step {
 public:
  ClearStep(const Fields& f, const Limits& limits)
      : planes_(f.positions("planes")), first_(f.positions("first")), length_(f.positions("length")), chunks_(plane_chunks(planes_.size(), limits.threads)) {
    require(!planes_.empty(), "clearing needs at least one plane");
    require(first_.size() == length_.size(), "clearing needs a length for each stretch");
    int64_t reach = 0;
    for (size_t i = 0; i < first_.size(); i++) {
      require(first_[i] >= 0 && length_[i] >= 0, "a stretch lies outside its plane");
      reach = std::max(reach, int64_t{first_[i]} + length_[i]);
    }
    require_inside(planes_, reach, limits.arena, "a plane lies outside the arena");
  }

  int chunks() const override { return chunks_; }

  void run(const Kernels&, const Context& context, int chunk) const override {
    const size_t parts = static_cast<size_t>(chunks_), part = static_cast<size_t>(chunk);
    for (size_t c = planes_.size() * part / parts; c < planes_.size() * (part + 1) / parts; c++)
      for (size_t i = 0; i < first_.size(); i++) std::fill_n(context.arena + planes_[c] + first_[i], length_[i], 0.0f);
  }

  std::string kernel(const Kernels&) const override { return "clear_f32"; }

 private:
  std::vector<int32_t> planes_, first_, length_;
  int chunks_;
};

const StepKind kind("clear", make<ClearStep>);

}  // namespace
}  // namespace openwork
