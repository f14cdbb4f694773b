// A step of a program: validated once when it is added, then run chunk by chunk by any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"

namespace openwork {

// Everything that a step's chunk may touch.
struct Context {
  float* arena;
  float* const* externals;  // model inputs and outputs, owned by the caller
};

// What a step is checked against before it may run.
struct Limits {
  int64_t arena;                     // floats
  std::span<const int64_t> externals;  // floats of each external buffer
  int threads;
};

class Step {
 public:
  virtual ~Step() = default;
  virtual int chunks() const = 0;
  virtual void run(const Kernels& kernels, const Context& context, int chunk) const = 0;
  virtual std::string kernel(const Kernels& kernels) const = 0;
};

struct TapsSpec {
  int mb = 1, vectors = 1;             // register block: rows x vectors
  int row_chunks = 1, tile_chunks = 1;  // how the work is cut for the threads
  std::span<const int32_t> start;      // [blocks + 1]
  std::span<const int32_t> index;      // [taps], into table
  std::span<const int32_t> table;      // floats from the arena's begin, one entry per (channel, dy, dx)
  std::span<const float> value, bias;  // [taps][mb], [blocks * mb]
  std::span<const int32_t> out, residual;
  std::span<const uint16_t> inside;  // [units]
  float lo = 0, hi = 0;
};

struct RowsSpec {
  int width = 16, row_chunks = 1, samples = 1;
  int64_t batch = 1, x = 0, x_stride = 0, y = 0, y_stride = 0;
  std::span<const int32_t> start, index;
  std::span<const float> value, bias;
  float lo = 0, hi = 0;
};

// An image stack in the arena (buffer -1) or in an external buffer: plane c of sample n begins at offset[c] + n * stride.
struct View {
  int buffer = -1;
  int64_t pitch = 0, stride = 0;
  std::span<const int32_t> offset;
};

struct PoolSpec {
  bool max = true;
  View x, y;
  int64_t batch = 1;
  int h = 0, w = 0, out_h = 0, out_w = 0;
  int kh = 1, kw = 1, sh = 1, sw = 1, ph = 0, pw = 0, dh = 1, dw = 1;
  std::span<const float> scale_y, scale_x;
};

// y[c, n, i, j] = x[c, n, i * step_y, j * step_x] for i < rows[c], j < columns[c]
struct CopySpec {
  View x, y;
  int64_t batch = 1;
  int step_y = 1, step_x = 1;
  std::span<const int32_t> rows, columns;
};

// y[n, c] = sum of the plane's h rows times scale; the padding between the rows is zero and may be summed along
struct MeanSpec {
  View x;
  int64_t batch = 1, y = 0, y_stride = 0;
  int h = 0, w = 0;
  float scale = 1;
};

std::unique_ptr<Step> make_step(const TapsSpec& spec, const Limits& limits);
std::unique_ptr<Step> make_step(const RowsSpec& spec, const Limits& limits);
std::unique_ptr<Step> make_step(const PoolSpec& spec, const Limits& limits);
std::unique_ptr<Step> make_step(const CopySpec& spec, const Limits& limits);
std::unique_ptr<Step> make_step(const MeanSpec& spec, const Limits& limits);

// ---- checks shared by the steps ----

inline void require(bool fine, const char* what) {
  if (!fine) throw std::invalid_argument(what);
}

constexpr int64_t kMaxSize = int64_t{1} << 30;  // keeps sums of products of two sizes inside int64

inline void require_size(int64_t value, int64_t lo, const char* what) { require(value >= lo && value < kMaxSize, what); }

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

template <class T>
std::vector<T> copied(std::span<const T> from) {
  return std::vector<T>(from.begin(), from.end());
}

}  // namespace openwork
