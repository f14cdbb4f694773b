#include "activation.hpp"

#include <string_view>

namespace openwork {
Activation::Activation(const Fields& f) {
  if (!f.given("act")) return;
  const Json::List& act = f.list("act");
  require(!act.empty(), "an activation needs a name");
  const std::string& name = act.front().string("act");
  for (int i = 0; i < kActs; i++)
    if (name == kActivations[i].name) kernel_ = i;
  if (kernel_ < 0) throw std::invalid_argument("unknown activation '" + name.substr(0, 40) + "'");
  if (f.has_array("slope")) {
    require(std::string_view(kActivations[kernel_].name) == "leaky_relu" && act.size() == 1, "only leaky_relu has a slope for each row");
    slopes_ = f.floats("slope");
    require(!slopes_.empty(), "slope is empty");
    return;
  }
  require(act.size() == 1 + kActivations[kernel_].parameters, "an activation has the wrong number of parameters");
  const bool bounds = name == "clamp";  // where no bound is null
  for (size_t i = 1; i < act.size(); i++)
    parameters_[i - 1] = bounds && act[i].is_null() ? (i == 1 ? -__builtin_inff() : __builtin_inff()) : static_cast<float>(act[i].number("act"));
}

std::string Activation::suffix() const { return kernel_ < 0 ? "" : std::string("_") + kActivations[kernel_].name; }

}  // namespace openwork
