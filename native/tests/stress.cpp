// Many threads at once, as openwork.h allows them:  stress SECONDS ARTIFACT...
//
// For each artifact: threads with an engine each, threads that share one engine, and threads that load and free engines
// meanwhile. Every output must be that of a run alone. Built with ThreadSanitizer, which ends the program at the first race.
// `stress race` makes one, to see that it is found.

#include <openwork.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Bytes = std::vector<char>;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "stress: %s\n", what.c_str());
  std::_Exit(1);
}

struct Engine {
  Engine(const std::string& path, int threads) : handle(openwork_load(path.c_str(), threads)) {
    if (!handle) fail(openwork_error());
  }
  ~Engine() { openwork_free(handle); }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  openwork_engine* const handle;
};

// The outputs for inputs that follow from a seed, one after the other.
Bytes outputs(openwork_engine* engine, unsigned seed) {
  std::vector<Bytes> memory;
  std::vector<const void*> in;
  std::vector<void*> out;
  for (int i = 0; i < openwork_input_count(engine); i++) {
    const openwork_tensor* tensor = openwork_input(engine, i);
    Bytes& bytes = memory.emplace_back(tensor->bytes);
    if (tensor->type == OPENWORK_FLOAT32)
      for (size_t at = 0; at < bytes.size(); at += 4) {
        const float value = static_cast<float>((seed = seed * 1664525 + 1013904223) >> 24) / 128 - 1;
        std::memcpy(bytes.data() + at, &value, 4);
      }
    else
      for (size_t at = 0; at < bytes.size(); at += 8) bytes[at] = static_cast<char>(seed++ % 2);
    in.push_back(bytes.data());
  }
  size_t size = 0;
  for (int i = 0; i < openwork_output_count(engine); i++) size += openwork_output(engine, i)->bytes;
  Bytes found(size);
  size = 0;
  for (int i = 0; i < openwork_output_count(engine); i++) {
    out.push_back(found.data() + size);
    size += openwork_output(engine, i)->bytes;
  }
  if (openwork_run(engine, in.data(), out.data())) fail(openwork_error());
  return found;
}

// Repeats `task`, which gets its thread's number, in four threads until time is over; returns how often it was done.
class Crowd {
 public:
  Crowd(Clock::time_point end, const std::function<void(unsigned)>& task) {
    for (unsigned number = 0; number < 4; number++)
      threads_.emplace_back([this, end, task, number] {
        do {
          task(number);
          done_++;
        } while (Clock::now() < end);
      });
  }
  int finish() {
    for (std::thread& thread : threads_) thread.join();
    return done_;
  }

 private:
  std::vector<std::thread> threads_;
  std::atomic<int> done_{0};
};

void stress(const std::string& path, double seconds) {
  std::vector<Bytes> wanted;
  {
    const Engine alone(path, 1);
    for (unsigned seed = 0; seed < 4; seed++) wanted.push_back(outputs(alone.handle, seed));
  }
  const auto check = [&](openwork_engine* engine, unsigned seed) {
    if (outputs(engine, seed) != wanted[seed]) fail(path + ": another output than alone");
  };
  const Clock::time_point end = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  const Engine shared(path, 3);
  const Engine own[4] = {{path, 1}, {path, 2}, {path, 2}, {path, 3}};
  Crowd each(end, [&](unsigned number) { check(own[number].handle, number); });
  Crowd sharing(end, [&](unsigned number) { check(shared.handle, number); });
  Crowd loading(end, [&](unsigned number) {
    const Engine fresh(path, 2);
    if (number % 2) check(fresh.handle, number);
    const std::string missing = "missing" + std::to_string(number);
    if (openwork_load(missing.c_str(), 1) || std::string(openwork_error()).find(missing) == std::string::npos) fail("an error of another thread");
  });
  const int runs[] = {each.finish(), sharing.finish(), loading.finish()};
  std::printf("%d %d %d\n", runs[0], runs[1], runs[2]);
}

int race() {
  int count = 0;
  std::thread other([&] { count++; });
  count++;
  other.join();
  return count;
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 2 && !std::strcmp(arguments[1], "race")) return race() == 0;
  for (int i = 2; i < count; i++) stress(arguments[i], std::atof(arguments[1]));
}
