// A step of a program: validated once when it is made, then run chunk by chunk by any thread.
//
// A kind of step is one file: a class, and `const StepKind kind("name", make<Class>);` that makes it known.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "fields.hpp"
#include "kernels.hpp"

namespace openwork {

// Everything that a step's chunk may touch.
struct Context {
  float* arena;
  float* const* externals;  // model inputs and outputs, owned by the caller
  float* scratch = nullptr;  // what steps asked for with scratch(): each finds there what another left
  int thread = 0;            // who runs the chunk, below the program's number of threads
  int level = 0;             // of nested sparsity: 0 has all weights
};

// What a step is checked against before it may run.
struct Limits {
  int64_t arena;                       // floats
  std::span<const int64_t> externals;  // floats of each external buffer
  std::span<const int> inputs;         // external buffers that a step may only read
  int threads;
};

class Step {
 public:
  virtual ~Step() = default;
  virtual int chunks() const = 0;  // of a round
  // Rounds follow each other: one begins when all chunks of the one before are done. Chunk c of round r is run(r * chunks() + c).
  virtual int rounds() const { return 1; }
  virtual void run(const Kernels& kernels, const Context& context, int chunk) const = 0;
  virtual std::string kernel(const Kernels& kernels) const = 0;
  // Floats of working memory that the step needs for all threads together. All steps of a program share the same.
  virtual int64_t scratch() const { return 0; }
  // Nested networks that the step holds; those with one only run the same at every level.
  virtual int levels() const { return 1; }
  // Puts what never changes into the arena, once, when the step joins its program.
  virtual void settle(float* /*arena*/) const {}
  // Before a run: throws std::out_of_range for values in external buffers that the step cannot take, such as a token's number.
  virtual void check(const Context& /*context*/) const {}
};

// Throws std::invalid_argument naming what is wrong with the fields.
std::unique_ptr<Step> make_step(const std::string& op, const Fields& fields, const Limits& limits);

using StepMaker = std::unique_ptr<Step> (*)(const Fields&, const Limits&);

struct StepKind {
  StepKind(const char* name, StepMaker make);
};

template <class S>
std::unique_ptr<Step> make(const Fields& fields, const Limits& limits) {
  return std::make_unique<S>(fields, limits);
}

// ---- checks shared by the steps ----

inline void require(bool fine, const char* what) {
  if (!fine) throw std::invalid_argument(what);
}

constexpr int64_t kMaxSize = int64_t{1} << 30;  // keeps sums of products of two sizes inside int64

inline void require_size(int64_t value, int64_t lo, const char* what) { require(value >= lo && value < kMaxSize, what); }

// Buffers outside the arena that a step writes belong to nobody else: an input is the caller's.
inline void require_writable(int buffer, const Limits& limits) {
  require(std::ranges::find(limits.inputs, buffer) == limits.inputs.end(), "a step writes into an input");
}

// Row pointers of a compressed list: 0 = start[0] <= start[1] <= ... = items.
inline void require_starts(std::span<const int32_t> start, size_t items) {
  require(start.size() >= 2 && start.front() == 0, "row pointers must begin with 0");
  for (size_t i = 1; i < start.size(); i++) require(start[i] >= start[i - 1], "row pointers must not decrease");
  require(static_cast<size_t>(start.back()) == items, "row pointers must end with the number of entries");
}

// Every offset + [0, reach) lies inside [0, size).
inline void require_inside(std::span<const int32_t> offset, int64_t reach, int64_t size, const char* what) {
  require(reach <= size, what);
  for (int32_t o : offset) require(o >= 0 && o <= size - reach, what);
}

// Clamp's bounds; no bound is null.
struct Bounds {
  explicit Bounds(const Fields& f)
      : lo(f.number("lo", -__builtin_inff())), hi(f.number("hi", __builtin_inff())) {}
  float lo, hi;
};

// The positions of a stack of images on a grid, in units of kUnit: bit i of entry u says whether position 16 u + i is a pixel.
std::vector<uint16_t> inside_bits(const std::vector<int>& grid, int64_t arena);

}  // namespace openwork
