#include "program.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <new>
#include <utility>

namespace openwork {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

#if defined(OPENWORK_HEAP_ARENA)

// From the heap, whose ends AddressSanitizer watches.
std::pair<float*, size_t> allocate_arena(int64_t floats) {
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
  void* const found = std::calloc(bytes, 1);
  if (!found) throw std::bad_alloc();
  return {static_cast<float*>(found), bytes};
}

void release_arena(float* arena, size_t) { std::free(arena); }

#else

// Zeroed by the kernel page by page on first use, so that a file which lies about its size costs nothing. Aligned to a huge
// page where it is large enough to profit from one. Returns the arena and the bytes to unmap.
std::pair<float*, size_t> allocate_arena(int64_t floats) {
  constexpr size_t kHuge = size_t{2} << 20, kPage = size_t{4} << 10;
  const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
  const size_t alignment = bytes >= kHuge ? kHuge : kPage;
  const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  void* const found = mmap(nullptr, rounded + alignment, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (found == MAP_FAILED) throw std::bad_alloc();
  char* const begin = static_cast<char*>(found);
  const size_t skip = (alignment - reinterpret_cast<uintptr_t>(begin) % alignment) % alignment;
  if (skip) munmap(begin, skip);
  munmap(begin + skip + rounded, alignment - skip);
#if defined(MADV_HUGEPAGE)
  if (alignment == kHuge) madvise(begin + skip, rounded, MADV_HUGEPAGE);  // a hint: refusal changes nothing but speed
#endif
  return {reinterpret_cast<float*>(begin + skip), rounded};
}

void release_arena(float* arena, size_t bytes) { munmap(arena, bytes); }

#endif

}  // namespace

void Program::Release::operator()(float* p) const { release_arena(p, bytes); }

Program::Program(int64_t arena_floats, std::vector<int64_t> externals, int threads, const std::string& isa, std::vector<int> inputs, int turns)
    : arena_floats_(arena_floats),
      external_floats_(std::move(externals)),
      inputs_(std::move(inputs)),
      turns_(turns),
      threads_(threads),
      kernels_(&kernels_named(isa)) {
  require(arena_floats >= 1 && arena_floats < (int64_t{1} << 31), "the arena must hold 1 to 2^31 - 1 floats");
  require(threads >= 1 && threads <= 1024, "threads must be 1 to 1024");
  require(turns >= 1, "a program has at least one turn");
  for (int64_t floats : external_floats_) {
    require_size(floats, 1, "an external buffer's size is out of range");
    require(floats % turns == 0, "an external buffer cannot be shared out evenly over the turns");
    share_.push_back(floats / turns);
  }
  const auto [arena, bytes] = allocate_arena(arena_floats);
  arena_ = {arena, Release{bytes}};
}

Program::~Program() { forget_pool_after_fork(); }

int Program::add(const std::string& op, const Fields& fields, int at) {
  const std::scoped_lock lock(mutex_);
  auto step = make_step(op, fields, limits());
  require(int64_t{step->chunks()} * step->rounds() < kMaxSize, "a step has too many rounds");
  require(at < size(), "no such step");
  require(step->levels() == 1 || levels_ == 1 || step->levels() == levels_, "steps hold different numbers of levels");
  need_scratch(step->scratch());
  step->settle(arena_.get());
  levels_ = std::max(levels_, step->levels());
  if (at < 0) {
    steps_.push_back(std::move(step));
    return size() - 1;
  }
  steps_[static_cast<size_t>(at)] = std::move(step);
  return at;
}

void Program::need_scratch(int64_t floats) {
  if (floats <= scratch_floats_) return;
  const auto [scratch, bytes] = allocate_arena(floats);
  scratch_ = {scratch, Release{bytes}};
  scratch_floats_ = floats;
}

// Threads do not survive a fork, and joining those of the parent would hang.
void Program::forget_pool_after_fork() {
  if (pool_ && pool_owner_ != static_cast<int>(getpid())) static_cast<void>(pool_.release());
}

ThreadPool& Program::pool() {
  forget_pool_after_fork();
  if (!pool_) pool_ = std::make_unique<ThreadPool>(threads_);
  pool_owner_ = static_cast<int>(getpid());
  return *pool_;
}

void Program::prepare(std::span<float* const> externals, int level) {
  require(level >= 0 && level < levels_, "no such level");
  level_ = level;
  require(externals.size() == external_floats_.size(), "every external buffer must be given");
  bind(externals, 0);
  if (finished_.size() != steps_.size()) {
    counters_ = std::vector<Counter>(steps_.size() * static_cast<size_t>(threads_));
    finished_ = std::vector<Finished>(steps_.size());
  }
}

void Program::bind(std::span<float* const> externals, int turn) {
  bound_.resize(externals.size());
  for (size_t i = 0; i < externals.size(); i++) bound_[i] = externals[i] + turn * share_[i];
}

// Runs the chunks of a step that this thread gets hold of, its own share first; returns how many.
uint32_t Program::run_chunks(int step, int thread, const Context& context) {
  const Step& work = *steps_[static_cast<size_t>(step)];
  const int64_t chunks = work.chunks();
  uint32_t mine = 0;
  for (int turn = 0; turn < threads_; turn++) {
    const int owner = (thread + turn) % threads_;
    const int begin = static_cast<int>(chunks * owner / threads_), end = static_cast<int>(chunks * (owner + 1) / threads_);
    std::atomic<int>& next = counters_[static_cast<size_t>(step) * static_cast<size_t>(threads_) + static_cast<size_t>(owner)].next;
    while (next.load(std::memory_order_relaxed) < end - begin) {  // a look costs less than a claim
      const int chunk = begin + next.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= end) break;
      work.run(*kernels_, context, chunk);
      mine++;
    }
  }
  return mine;
}

// Runs the chunks of a round that are left of `owner`'s share. The counters go on from round to round.
uint32_t Program::run_share(int step, int round, int owner, const Context& context) {
  const Step& work = *steps_[static_cast<size_t>(step)];
  const int64_t chunks = work.chunks();
  const int begin = static_cast<int>(chunks * owner / threads_), size = static_cast<int>(chunks * (owner + 1) / threads_) - begin;
  std::atomic<int>& next = counters_[static_cast<size_t>(step) * static_cast<size_t>(threads_) + static_cast<size_t>(owner)].next;
  uint32_t done = 0;
  for (int at = next.load(std::memory_order_relaxed); at < (round + 1) * size;)
    if (next.compare_exchange_weak(at, at + 1, std::memory_order_relaxed)) {
      work.run(*kernels_, context, static_cast<int>(chunks) * round + begin + at - round * size);
      done++;
      at++;
    }
  return done;
}

// Rounds are short and come by the thousand: a thread that is done early looks at the one counter of finished chunks, and at
// the others' shares only when they take so long that their owners may have lost their cores.
void Program::run_rounds(int step, int thread, const Context& context) {
  const uint32_t chunks = static_cast<uint32_t>(steps_[static_cast<size_t>(step)]->chunks());
  std::atomic<uint32_t>& finished = finished_[static_cast<size_t>(step)].chunks;
  const int rounds = steps_[static_cast<size_t>(step)]->rounds();
  for (int r = 0; r < rounds; r++) {
    const uint32_t wanted = (static_cast<uint32_t>(r) + 1) * chunks;
    const auto report = [&](uint32_t done) {
      if (done && finished.fetch_add(done, std::memory_order_acq_rel) + done == wanted) finished.notify_all();
    };
    report(run_share(step, r, thread, context));
    if (spin_until(finished, wanted)) continue;
    for (int turn = 1; turn < threads_; turn++) report(run_share(step, r, (thread + turn) % threads_, context));
    wait_until(finished, wanted);
  }
}

// Every thread walks the same steps.
void Program::work(int begin, int end, int thread, std::vector<double>* ends) {
  const Context context = {arena_.get(), bound_.data(), scratch_.get(), thread, level_};
  const auto start = Clock::now();
  for (int s = begin; s < end; s++) {
    if (steps_[static_cast<size_t>(s)]->rounds() > 1) {
      run_rounds(s, thread, context);
    } else {
      const uint32_t chunks = static_cast<uint32_t>(steps_[static_cast<size_t>(s)]->chunks());
      std::atomic<uint32_t>& finished = finished_[static_cast<size_t>(s)].chunks;
      const uint32_t mine = run_chunks(s, thread, context);
      if (mine && finished.fetch_add(mine, std::memory_order_acq_rel) + mine == chunks) finished.notify_all();
      wait_for(finished, chunks);
    }
    if (ends && thread == 0) ends->push_back(seconds_since(start));
  }
}

void Program::run_steps(int begin, int end, std::vector<double>* ends) {
  for (int s = begin; s < end; s++) {
    for (int t = 0; t < threads_; t++)
      counters_[static_cast<size_t>(s) * static_cast<size_t>(threads_) + static_cast<size_t>(t)].next.store(0, std::memory_order_relaxed);
    finished_[static_cast<size_t>(s)].chunks.store(0, std::memory_order_relaxed);
  }
  pool().run([&](int thread) { work(begin, end, thread, ends); });
}

void Program::run(int begin, int end, std::span<float* const> externals, int level) {
  const std::scoped_lock lock(mutex_);
  require(begin >= 0 && begin <= end && end <= size(), "no such steps");
  prepare(externals, level);
  for (int turn = 0; turn < turns_; turn++) {
    bind(externals, turn);
    for (int s = begin; s < end; s++) steps_[static_cast<size_t>(s)]->check({arena_.get(), bound_.data()});
  }
  for (int turn = 0; turn < turns_; turn++) {
    bind(externals, turn);
    run_steps(begin, end);
  }
}

std::vector<double> Program::time_step(int step, int repeats, std::span<float* const> externals) {
  const std::scoped_lock lock(mutex_);
  require(step >= 0 && step < size() && repeats >= 1, "no such step");
  prepare(externals, 0);
  std::vector<double> seconds;
  for (int r = 0; r < repeats; r++) {
    const auto start = Clock::now();
    run_steps(step, step + 1);
    seconds.push_back(seconds_since(start));
  }
  return seconds;
}

std::vector<std::vector<double>> Program::profile(int repeats, std::span<float* const> externals, int level) {
  const std::scoped_lock lock(mutex_);
  prepare(externals, level);
  std::vector<std::vector<double>> all;
  for (int r = 0; r < repeats; r++) {
    std::vector<double> ends;
    ends.reserve(steps_.size());
    run_steps(0, size(), &ends);
    for (size_t s = ends.size(); s-- > 1;) ends[s] -= ends[s - 1];
    all.push_back(std::move(ends));
  }
  return all;
}

double fma_peak(const Kernels& kernels) {
  constexpr int64_t kIterations = 200'000;
  double best = 0;
  for (int repeat = 0; repeat < 20; repeat++) {
    const auto start = Clock::now();
    const double flops = kernels.fma_peak(kIterations);
    best = std::max(best, flops / seconds_since(start));
  }
  return best;
}

}  // namespace openwork
