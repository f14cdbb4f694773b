// One input of the fuzzer: bytes that are refused as an artifact, or load and run. Anything else ends the process.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "engine.hpp"
#include "fuzz.hpp"

namespace openwork {

FuzzCounts fuzz_counts;

int overflow() {
  const std::vector<char> room(10);
  const volatile char* at = room.data();
  return at[10];
}

namespace {

constexpr int64_t kLargest = 1 << 18;  // elements of inputs and outputs together; more would only take time

[[noreturn]] void broken(const char* what) {
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

// Each buffer is memory of its own, so that a step beyond an end is seen.
struct Buffers {
  Buffers(const Engine& engine, const std::vector<int>& places, int64_t batches, uint32_t seed) {
    for (const int i : places) {
      const External& e = engine.externals()[static_cast<size_t>(i)];
      const size_t size = e.bytes() * static_cast<size_t>(batches);
      auto& memory = owned.emplace_back(std::make_unique<char[]>(size));
      sizes.push_back(size);
      pointers.push_back(memory.get());
      for (size_t at = 0; at < size; at += element_bytes(e.element)) {
        seed = seed * 1664525 + 1013904223;
        const float number = static_cast<float>(seed >> 24) / 64 - 2;
        if (e.element == Element::f32 && seed % 8)
          std::memcpy(&memory[at], &number, sizeof number);
        else
          memory[at] = static_cast<char>(seed >> 16 & (seed % 16 ? 7 : 255));
      }
    }
  }

  std::vector<std::unique_ptr<char[]>> owned;
  std::vector<size_t> sizes;
  std::vector<void*> pointers;
};

void run(Engine& engine, int64_t batch, int64_t room, uint32_t seed) {
  const Buffers in(engine, engine.inputs(), room, seed), before(engine, engine.inputs(), room, seed);
  const Buffers out(engine, engine.outputs(), room, seed);
  if (batch < 0)
    engine.run(in.pointers.data(), out.pointers.data());
  else
    engine.run(batch, in.pointers.data(), out.pointers.data());
  for (size_t i = 0; i < in.sizes.size(); i++)
    if (std::memcmp(in.pointers[i], before.pointers[i], in.sizes[i])) broken("an input was written");
}

void attempt(std::span<const uint8_t> bytes) {
  const uint32_t seed = bytes.empty() ? 0 : static_cast<uint32_t>(bytes.size() * 31 + bytes.back() + bytes[bytes.size() / 2]);
  const auto kernels = available_kernels();
  std::vector<uint8_t> copy(bytes.begin(), bytes.end());  // of exactly that size
  Artifact artifact = read_artifact({"the artifact", copy, nullptr}, seed % 8 ? 1 : 2, kernels[seed % kernels.size()]->name);
  fuzz_counts.loaded++;
  int64_t size = 0;
  for (const External& e : artifact.externals) size += e.size;
  if (size > kLargest || artifact.program->arena().size() > size_t{kLargest} * 4) return;
  Engine engine(std::move(artifact));
  run(engine, -1, 1, seed);
  if (seed % 4 == 0) {
    const auto& shape = engine.externals()[static_cast<size_t>(engine.inputs()[0])].shape;
    const int64_t piece = shape.empty() ? 1 : shape[0];
    if (piece * size <= kLargest) run(engine, 2 * piece - 1, 2, seed);
  }
  fuzz_counts.ran++;
}

}  // namespace
}  // namespace openwork

extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1:max_allocation_size_mb=2048:detect_leaks=1"; }

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    openwork::attempt({data, size});
  } catch (const openwork::ArtifactError&) {
  } catch (const std::invalid_argument&) {
  } catch (const std::out_of_range&) {  // a token
  } catch (const std::bad_alloc&) {
  } catch (const std::runtime_error&) {
  }
  return 0;
}
