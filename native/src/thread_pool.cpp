#include "thread_pool.hpp"

#include <stdexcept>
#include <string>
#include <system_error>

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
constexpr int kShortSpins = 250;

}  // namespace

void wait_while(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; i++) {
    if (value.load(std::memory_order_acquire) != old) return;
    relax();
  }
  while (value.load(std::memory_order_acquire) == old) value.wait(old, std::memory_order_acquire);
}

void wait_for(const std::atomic<uint32_t>& value, uint32_t wanted) {
  for (uint32_t now; (now = value.load(std::memory_order_acquire)) != wanted;) wait_while(value, now);
}

bool spin_until(const std::atomic<uint32_t>& counter, uint32_t wanted) {
  for (int i = 0; i < kShortSpins; i++) {
    if (counter.load(std::memory_order_acquire) >= wanted) return true;
    relax();
  }
  return false;
}

void wait_until(const std::atomic<uint32_t>& counter, uint32_t wanted) {
  for (uint32_t now; (now = counter.load(std::memory_order_acquire)) < wanted;) wait_while(counter, now);
}

ThreadPool::ThreadPool(int threads) {
  try {
    for (int id = 1; id < threads; id++) workers_.emplace_back([this, id] { work(id); });
  } catch (const std::system_error&) {
    const size_t started = workers_.size() + 1;
    stop();  // a joinable thread that is destroyed would end the process
    throw std::runtime_error("the system grants only " + std::to_string(started) + " of " + std::to_string(threads) + " threads");
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() {
  stop_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(const std::function<void(int)>& task) {
  if (workers_.empty()) return task(0);
  task_ = &task;
  open_.store(true);
  generation_.fetch_add(1);
  generation_.notify_all();
  task(0);
  // Sequentially consistent on purpose: either a worker sees the door closed, or we see the worker inside. The waiting loop
  // reads in a weaker order, which could come before the store.
  open_.store(false);
  if (active_.load() != 0) wait_for(active_, 0);
}

void ThreadPool::work(int id) {
  for (uint32_t seen = 0;;) {
    wait_while(generation_, seen);
    seen = generation_.load();
    if (stop_.load()) return;
    active_.fetch_add(1);
    if (open_.load()) (*task_)(id);
    active_.fetch_sub(1);
    active_.notify_one();
  }
}

}  // namespace openwork
