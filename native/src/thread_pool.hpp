// A small thread pool for one engine: one wake-up per inference; inside, threads meet at finished work, not at barriers.
//
// On a shared machine a worker may be off its core for milliseconds. Nobody waits for it unless it holds a piece of work:
// the caller does all that the workers have not taken, and a worker that wakes too late finds the door closed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

namespace openwork {

// Waits until `value` differs from / equals a number: a bounded spin (the next step is microseconds away), then sleep.
void wait_while(const std::atomic<uint32_t>& value, uint32_t old);
void wait_for(const std::atomic<uint32_t>& value, uint32_t wanted);

// For a counter that grows, also past `wanted`. The first gives up, with false, after about 5 microseconds.
bool spin_until(const std::atomic<uint32_t>& counter, uint32_t wanted);
void wait_until(const std::atomic<uint32_t>& counter, uint32_t wanted);

class ThreadPool {
 public:
  // Throws std::runtime_error if the system grants fewer threads.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Runs task(0) here and task(1..threads-1) on those workers that come in time. The task must be such that task(0) alone
  // completes the work. Returns when everyone who came has left. One caller at a time.
  void run(const std::function<void(int)>& task);

 private:
  void work(int id);
  void stop();

  std::vector<std::thread> workers_;
  const std::function<void(int)>* task_ = nullptr;
  std::atomic<bool> stop_{false};
  alignas(64) std::atomic<uint32_t> generation_{0};
  alignas(64) std::atomic<bool> open_{false};
  alignas(64) std::atomic<uint32_t> active_{0};
};

}  // namespace openwork
