#include "step.hpp"

#include <map>

namespace openwork {
namespace {

std::map<std::string, StepMaker>& kinds() {
  static std::map<std::string, StepMaker> known;  // filled before main by the kinds' own files
  return known;
}

}  // namespace

StepKind::StepKind(const char* name, StepMaker make) { kinds()[name] = make; }

std::unique_ptr<Step> make_step(const std::string& op, const Fields& fields, const Limits& limits) {
  const auto found = kinds().find(op);
  if (found == kinds().end()) throw std::invalid_argument("unknown kind of step '" + op.substr(0, 40) + "'");
  return found->second(fields, limits);
}

std::vector<uint16_t> inside_bits(const std::vector<int>& grid, int64_t arena) {
  require(grid.size() == 5, "a grid is [batch, stride, pitch, height, width]");
  for (int size : grid) require(size >= 1, "a grid's sizes are out of range");
  const int64_t batch = grid[0], stride = grid[1], pitch = grid[2], h = grid[3], w = grid[4];
  require(w <= pitch && (batch - 1) * stride <= arena && (h - 1) * pitch <= arena, "a grid's sizes are out of range");
  require(batch == 1 || stride >= (h - 1) * pitch + w, "a grid's images overlap");
  const int64_t count = (batch - 1) * stride + (h - 1) * pitch + w;
  require(count <= arena, "a grid's sizes are out of range");
  std::vector<uint16_t> bits(static_cast<size_t>((count + kUnit - 1) / kUnit), 0);
  for (int64_t n = 0; n < batch; n++)
    for (int64_t y = 0; y < h; y++)
      for (int64_t q = n * stride + y * pitch; q < n * stride + y * pitch + w; q++)
        bits[static_cast<size_t>(q / kUnit)] = static_cast<uint16_t>(bits[static_cast<size_t>(q / kUnit)] | 1 << (q % kUnit));
  return bits;
}

}  // namespace openwork
