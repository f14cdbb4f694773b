// Drives the fuzzer where libFuzzer is not at hand:
//
//   fuzz SEEDS INPUTS SECONDS SEED   tries so many mutations of the files in a folder, or stops after so many seconds,
//   fuzz FILE...                     tries files as they are.
//
// Inputs that reach code which no other has reached join the seeds. They run in a child process, so that a crash can be
// told from a success, its input saved as crash.openwork, and an input that takes too long counted and left behind.
// `fuzz overflow` reads beyond an end, to see that it is found.

#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "fuzz.hpp"

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLargest = 64 << 10;  // bytes of an input
constexpr size_t kEdges = 1 << 16, kPool = 64 << 20, kPlaces = 1 << 15;
// For one input: of the CPU's time, so that a busy machine makes no input slow, and of any, for what waits for ever.
constexpr unsigned kSeconds = 10, kSecondsAsleep = 600;

// What parent and child share.
struct Shared {
  uint64_t next, slow;
  openwork::FuzzCounts counts;
  size_t size;
  uint8_t input[kLargest];
  uint8_t reached[kEdges];
  size_t corpus, used;
  struct {
    size_t begin, size;
    bool loaded;
  } place[kPlaces];
  uint8_t pool[kPool];
};

Shared* shared;
bool fresh;

void remember(const uint8_t* data, size_t size, bool loaded) {
  if (shared->corpus == kPlaces || shared->used + size > kPool) return;
  std::memcpy(shared->pool + shared->used, data, size);
  shared->place[shared->corpus++] = {shared->used, size, loaded};
  shared->used += size;
}

void limit_time(bool on) {
  const itimerval busy = {{0, 0}, {on ? kSeconds : 0, 0}};
  setitimer(ITIMER_PROF, &busy, nullptr);
  alarm(on ? kSecondsAsleep : 0);
}

void try_input(uint64_t number, unsigned seed) {
  std::seed_seq both{static_cast<uint64_t>(seed), number};
  std::mt19937 random(both);
  // What is refused at once leads nowhere: most mutations begin with what is not.
  size_t at = random() % shared->corpus;
  while (!shared->place[at].loaded && random() % 8) at = random() % shared->corpus;
  const auto from = shared->place[at];
  std::memcpy(shared->input, shared->pool + from.begin, from.size);
  size_t size = from.size;
  for (unsigned i = 1 + (random() % 4 ? 0 : random() % 4); i--;)
    size = LLVMFuzzerCustomMutator(shared->input, size, kLargest, static_cast<unsigned>(random()));
  shared->size = size;
  fresh = false;
  const uint64_t before = openwork::fuzz_counts.loaded;
  limit_time(true);
  LLVMFuzzerTestOneInput(shared->input, size);
  limit_time(false);
  shared->counts = openwork::fuzz_counts;
  if (fresh) remember(shared->input, size, openwork::fuzz_counts.loaded > before);
}

[[noreturn]] void child(uint64_t inputs, Clock::time_point end, unsigned seed) {
  openwork::fuzz_counts = shared->counts;
  while (shared->next < inputs && Clock::now() < end) try_input(shared->next++, seed);
  std::exit(0);  // looks for leaks
}

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void save_input(const char* name) {
  std::ofstream(name, std::ios::binary).write(reinterpret_cast<const char*>(shared->input), static_cast<std::streamsize>(shared->size));
}

int fuzz(const char* seeds, uint64_t inputs, double seconds, unsigned seed) {
  void* const mapped = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return std::perror("fuzz"), 2;
  shared = static_cast<Shared*>(mapped);
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(seeds)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  for (const auto& path : paths)
    if (const std::string content = read_file(path); content.size() <= kLargest)
      remember(reinterpret_cast<const uint8_t*>(content.data()), content.size(), true);
  if (!shared->corpus) return std::fprintf(stderr, "fuzz: no seeds in %s\n", seeds), 2;
  const auto start = Clock::now(), end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  while (shared->next < inputs && Clock::now() < end) {
    const pid_t id = fork();
    if (!id) child(inputs, end, seed);
    int status;
    waitpid(id, &status, 0);
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGPROF)) {
      shared->slow++;
      save_input("slow.openwork");
    } else if (!WIFEXITED(status) || WEXITSTATUS(status)) {
      save_input("crash.openwork");
      std::fprintf(stderr, "fuzz: input %llu of seed %u: crash.openwork\n", static_cast<unsigned long long>(shared->next - 1), seed);
      return 1;
    }
  }
  const auto number = [](uint64_t value) { return static_cast<unsigned long long>(value); };
  std::printf("{\"inputs\": %llu, \"loaded\": %llu, \"ran\": %llu, \"slow\": %llu, \"corpus\": %zu, \"seconds\": %.0f}\n",
              number(shared->next), number(shared->counts.loaded), number(shared->counts.ran), number(shared->slow), shared->corpus,
              std::chrono::duration<double>(Clock::now() - start).count());
  return 0;
}

}  // namespace

// The compiler calls this at every branch of the library.
extern "C" __attribute__((no_sanitize("address", "undefined"))) void __sanitizer_cov_trace_pc() {
  if (!shared) return;
  const auto pc = reinterpret_cast<uintptr_t>(__builtin_return_address(0));
  uint8_t& reached = shared->reached[(pc ^ pc >> 16) % kEdges];
  if (!reached) reached = 1, fresh = true;
}

int main(int count, char** arguments) {
  if (count == 2 && !std::strcmp(arguments[1], "overflow")) return openwork::overflow();
  if (count == 5 && std::filesystem::is_directory(arguments[1]))
    return fuzz(arguments[1], std::strtoull(arguments[2], nullptr, 10), std::atof(arguments[3]), static_cast<unsigned>(std::atoi(arguments[4])));
  for (int i = 1; i < count; i++) {
    const std::string content = read_file(arguments[i]);
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(content.data()), content.size());
    std::printf("%s: loaded %llu, ran %llu\n", arguments[i], static_cast<unsigned long long>(openwork::fuzz_counts.loaded),
                static_cast<unsigned long long>(openwork::fuzz_counts.ran));
  }
}
