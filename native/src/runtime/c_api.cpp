// The functions of openwork.h: C++ inside, no exception leaves.

#include <sched.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <new>
#include <thread>

#include "engine.hpp"
#include "openwork.h"

namespace openwork {
namespace {

thread_local char last_error[512] = "";  // no string: there may be no memory left for the message

void fail(const char* what) { std::snprintf(last_error, sizeof last_error, "%s", what); }

// What f returns, or `otherwise` with the reason noted.
template <class R, class F>
R guarded(R otherwise, F f) {
  try {
    return f();
  } catch (const std::bad_alloc&) {
    fail("out of memory");
  } catch (const std::exception& error) {
    fail(error.what());
  } catch (...) {
    fail("an unknown error");
  }
  return otherwise;
}

int checked_threads(int threads) {
  if (threads < 0 || threads > 1024) throw std::invalid_argument("threads=" + std::to_string(threads) + " is not a whole number in 0..1024");
  if (threads) return threads;
#if defined(__linux__)
  cpu_set_t cores;
  if (!sched_getaffinity(0, sizeof cores, &cores)) return CPU_COUNT(&cores);
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::vector<openwork_tensor> described(const Engine& engine, const std::vector<int>& places) {
  std::vector<openwork_tensor> found;
  for (const int i : places) {
    const External& e = engine.externals()[static_cast<size_t>(i)];
    found.push_back({e.name.c_str(), static_cast<openwork_type>(e.element), static_cast<int>(e.shape.size()), e.shape.data(), e.bytes()});
  }
  return found;
}

}  // namespace
}  // namespace openwork

using namespace openwork;

struct openwork_engine {
  explicit openwork_engine(Artifact artifact) : engine(std::move(artifact)), inputs(described(engine, engine.inputs())), outputs(described(engine, engine.outputs())) {}

  Engine engine;
  const std::vector<openwork_tensor> inputs, outputs;
};

namespace {

openwork_engine& given(openwork_engine* engine) {
  if (!engine) throw std::invalid_argument("the engine is a null pointer");
  return *engine;
}

const openwork_tensor* tensor(const openwork_engine* engine, int index, const std::vector<openwork_tensor> openwork_engine::*which, const char* what) {
  return guarded<const openwork_tensor*>(nullptr, [&] {
    const auto& tensors = given(const_cast<openwork_engine*>(engine)).*which;
    if (index < 0 || static_cast<size_t>(index) >= tensors.size())
      throw std::invalid_argument(std::string("there is no ") + what + " " + std::to_string(index) + ", the model has " + std::to_string(tensors.size()));
    return &tensors[static_cast<size_t>(index)];
  });
}

}  // namespace

const char* openwork_version(void) { return OPENWORK_VERSION; }

const char* openwork_error(void) { return last_error; }

openwork_engine* openwork_load(const char* path, int threads) {
  return guarded<openwork_engine*>(nullptr, [&] {
    if (!path) throw std::invalid_argument("the path is a null pointer");
    return new openwork_engine(read_artifact(map_file(path), checked_threads(threads)));
  });
}

openwork_engine* openwork_load_memory(const void* content, size_t size, int threads) {
  return guarded<openwork_engine*>(nullptr, [&] {
    if (!content) throw std::invalid_argument("the content is a null pointer");
    return new openwork_engine(read_artifact({"the artifact", {static_cast<const uint8_t*>(content), size}, nullptr}, checked_threads(threads)));
  });
}

void openwork_free(openwork_engine* engine) { delete engine; }

int openwork_input_count(const openwork_engine* engine) {
  return guarded(-1, [&] { return static_cast<int>(given(const_cast<openwork_engine*>(engine)).inputs.size()); });
}

int openwork_output_count(const openwork_engine* engine) {
  return guarded(-1, [&] { return static_cast<int>(given(const_cast<openwork_engine*>(engine)).outputs.size()); });
}

const openwork_tensor* openwork_input(const openwork_engine* engine, int index) { return tensor(engine, index, &openwork_engine::inputs, "input"); }

const openwork_tensor* openwork_output(const openwork_engine* engine, int index) { return tensor(engine, index, &openwork_engine::outputs, "output"); }

int openwork_run(openwork_engine* engine, const void* const* inputs, void* const* outputs) {
  return guarded(-1, [&] { return given(engine).engine.run(inputs, outputs), 0; });
}

int openwork_levels(const openwork_engine* engine) {
  return guarded(-1, [&] { return given(const_cast<openwork_engine*>(engine)).engine.levels(); });
}

int openwork_run_level(openwork_engine* engine, int level, int64_t batch, const void* const* inputs, void* const* outputs) {
  return guarded(-1, [&] { return given(engine).engine.run(batch, inputs, outputs, std::max(level, 0) - 1), 0; });
}

int openwork_run_batch(openwork_engine* engine, int64_t batch, const void* const* inputs, void* const* outputs) {
  return guarded(-1, [&] { return given(engine).engine.run(batch, inputs, outputs), 0; });
}
