// A program: an arena, external buffers and a list of validated steps, run by a thread pool.
//
// Thread safety: calls on one program are serialized by a lock; different programs are independent.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "step.hpp"
#include "thread_pool.hpp"

namespace openwork {

class Program {
 public:
  // isa: a name from available_kernels(), or "auto" for the best. inputs: external buffers that no step may write. turns: how
  // often a run makes its steps, each time on the next equal share of every external buffer.
  Program(int64_t arena_floats, std::vector<int64_t> externals, int threads, const std::string& isa, std::vector<int> inputs = {}, int turns = 1);
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  // Validates and appends a step, or replaces step `at`; throws std::invalid_argument naming what is wrong.
  int add(const std::string& op, const Fields& fields, int at = -1);

  // Runs steps [begin, end), as often as there are turns. externals[i] points to the floats of external buffer i. level: of
  // nested sparsity, below levels().
  void run(int begin, int end, std::span<float* const> externals, int level = 0);
  // Seconds of each of `repeats` runs of one step, of one turn, with all weights.
  std::vector<double> time_step(int step, int repeats, std::span<float* const> externals);
  // Seconds that each step took in each of `repeats` whole runs of one turn at a level: [repeats][steps].
  std::vector<std::vector<double>> profile(int repeats, std::span<float* const> externals, int level = 0);

  std::span<float> arena() { return {arena_.get(), static_cast<size_t>(arena_floats_)}; }
  const Kernels& kernels() const { return *kernels_; }
  std::string kernel_name(int step) const { return steps_.at(static_cast<size_t>(step))->kernel(*kernels_); }
  int threads() const { return threads_; }
  // Nested networks that the steps hold.
  int levels() const { return levels_; }
  int size() const { return static_cast<int>(steps_.size()); }
  std::span<const int64_t> externals() const { return external_floats_; }

 private:
  // A step's chunks are shared out evenly beforehand, so that a thread meets the same part of every layer in its cache
  // and no counter is contended; who is done with its share takes from the others'. A step is over when all its
  // chunks are done, whoever did them.
  struct alignas(64) Counter {
    std::atomic<int> next{0};
  };
  struct alignas(64) Finished {
    std::atomic<uint32_t> chunks{0};
  };
  struct Release {
    size_t bytes;
    void operator()(float* p) const;
  };

  Limits limits() const { return {arena_floats_, share_, inputs_, threads_}; }
  void prepare(std::span<float* const> externals, int level);
  // Moves to a turn's share of the external buffers.
  void bind(std::span<float* const> externals, int turn);
  // Has at least so many floats of working memory from now on.
  void need_scratch(int64_t floats);
  // Runs steps [begin, end) on all threads; if `ends` is given, notes the seconds at which each was over.
  void run_steps(int begin, int end, std::vector<double>* ends = nullptr);
  void work(int begin, int end, int thread, std::vector<double>* ends);
  uint32_t run_chunks(int step, int thread, const Context& context);
  void run_rounds(int step, int thread, const Context& context);
  uint32_t run_share(int step, int round, int owner, const Context& context);
  ThreadPool& pool();
  void forget_pool_after_fork();

  int64_t arena_floats_;
  std::vector<int64_t> external_floats_;
  std::vector<int64_t> share_;  // of each external buffer, for a turn
  std::vector<int> inputs_;
  int turns_;
  int levels_ = 1, level_ = 0;  // how many there are, and the one that runs
  int threads_;
  const Kernels* kernels_;
  std::unique_ptr<float[], Release> arena_{nullptr, Release{0}};
  int64_t scratch_floats_ = 0;
  std::unique_ptr<float[], Release> scratch_{nullptr, Release{0}};
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<Counter> counters_;    // [steps][threads]
  std::vector<Finished> finished_;  // [steps]
  std::vector<float*> bound_;
  std::mutex mutex_;
  std::unique_ptr<ThreadPool> pool_;
  int pool_owner_ = 0;  // process id: threads do not survive a fork
};

// Measured multiply-add peak of one core in floating-point operations a second.
double fma_peak(const Kernels& kernels);

}  // namespace openwork
