// A small thread pool for one engine: one wake-up per inference, then barriers between steps.
//
// Waiting is a bounded spin (the next step is microseconds away), then sleep (a neighbour may have taken the core).
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

namespace openwork {

class Barrier {
 public:
  explicit Barrier(int threads) : threads_(threads) {}
  void wait();

 private:
  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};
};

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // Runs task(0) here and task(1..size-1) on the workers; returns when all are done. One caller at a time.
  void run(const std::function<void(int)>& task);

 private:
  void work(int id);

  std::vector<std::thread> workers_;
  const std::function<void(int)>* task_ = nullptr;
  bool stop_ = false;
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<uint32_t> done_{0};
};

}  // namespace openwork
