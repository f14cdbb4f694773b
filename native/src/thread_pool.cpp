#include "thread_pool.hpp"

namespace openwork {
namespace {

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// About 0.2 ms: longer than any step of a small model, shorter than a scheduler's time slice.
constexpr int kSpins = 10'000;

void wait_until_changed(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; i++) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

}  // namespace

void Barrier::wait() {
  if (threads_ == 1) return;
  const uint32_t generation = generation_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == threads_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
  } else {
    wait_until_changed(generation_, generation);
  }
}

ThreadPool::ThreadPool(int threads) {
  for (int id = 1; id < threads; id++) workers_.emplace_back([this, id] { work(id); });
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(int)>& task) {
  const uint32_t workers = static_cast<uint32_t>(workers_.size());
  if (workers == 0) return task(0);
  task_ = &task;
  done_.store(0, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  task(0);
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != workers;) wait_until_changed(done_, done);
}

void ThreadPool::work(int id) {
  for (uint32_t generation = 0;;) {
    wait_until_changed(generation_, generation);
    generation++;
    if (stop_) return;
    (*task_)(id);
    done_.fetch_add(1, std::memory_order_release);
    done_.notify_one();
  }
}

}  // namespace openwork
