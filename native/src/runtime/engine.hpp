// Runs an artifact: checks what the caller hands in, converts whole numbers, and cuts batches into compiled ones.
//
// Thread safety: calls on one engine wait for each other; different engines are independent.
#pragma once

#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "artifact.hpp"

namespace openwork {

class Engine {
 public:
  explicit Engine(Artifact artifact);

  const std::vector<External>& externals() const { return artifact_.externals; }
  const std::vector<int>& inputs() const { return artifact_.inputs; }
  const std::vector<int>& outputs() const { return artifact_.outputs; }

  // Nested networks that the model holds.
  int levels() const { return artifact_.program->levels(); }

  // One pointer for each input and output, of the compiled batch; level 0 has all weights. Throws std::invalid_argument for missing pointers and wrong
  // alignment, and for whole numbers that do not fit into 32 bits; std::out_of_range for tokens that are not in a table; std::bad_alloc and std::runtime_error where memory or threads
  // run out.
  void run(const void* const* inputs, void* const* outputs, int level = 0);
  // The same for any batch; also throws std::invalid_argument if inputs and outputs share no batch axis.
  void run(int64_t batch, const void* const* inputs, void* const* outputs, int level = 0);

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  using Memory = std::unique_ptr<void, Free>;

  static Memory zeros(size_t bytes);
  void check(const std::vector<int>& places, const void* const* pointers, const char* what) const;
  int64_t compiled_batch() const;
  void choose(int level);
  void run_once(const void* const* inputs, void* const* outputs);
  void run_rest(int64_t batch, const void* const* inputs, void* const* outputs);

  Artifact artifact_;
  std::vector<Memory> own_;      // buffers that no caller gives: whole numbers as 32-bit integers, and what is neither in nor out
  std::vector<float*> bound_;    // what each external is in this run
  int level_ = 0;
  std::mutex mutex_;
};

}  // namespace openwork
