#include "engine.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace openwork {
namespace {

// Calls f with a value of the element's type; truth values are bytes.
template <class F>
void with_type(Element element, F f) {
  switch (element) {
    case Element::f32: return f(float{});
    case Element::i64: return f(int64_t{});
    case Element::i32: return f(int32_t{});
    case Element::i16: return f(int16_t{});
    case Element::i8: return f(int8_t{});
    case Element::u8:
    case Element::boolean: return f(uint8_t{});
  }
}

// Native steps see whole numbers as 32-bit integers, truth values as 0 and 1.
void narrow(const External& e, const void* from, int32_t* to) {
  with_type(e.element, [&](auto kind) {
    const auto* values = static_cast<const decltype(kind)*>(from);
    for (int64_t i = 0; i < e.size; i++) {
      const auto value = values[i];
      to[i] = e.element == Element::boolean ? value != 0 : static_cast<int32_t>(value);
      if constexpr (sizeof kind > 4)
        if (to[i] != value) throw std::invalid_argument("input " + e.name + " holds " + std::to_string(value) + ", which does not fit into 32 bits");
    }
  });
}

void widen(const External& e, const int32_t* from, void* to) {
  with_type(e.element, [&](auto kind) {
    auto* values = static_cast<decltype(kind)*>(to);
    for (int64_t i = 0; i < e.size; i++) values[i] = static_cast<decltype(kind)>(from[i]);
  });
}

}  // namespace

Engine::Memory Engine::zeros(size_t bytes) {
  Memory found(std::calloc(std::max<size_t>(bytes, 1), 1));
  if (!found) throw std::bad_alloc();
  return found;
}

Engine::Engine(Artifact artifact) : artifact_(std::move(artifact)), own_(artifact_.externals.size()), bound_(artifact_.externals.size()) {
  std::vector<bool> given(own_.size());
  for (const auto* places : {&artifact_.inputs, &artifact_.outputs})
    for (const int i : *places) given[static_cast<size_t>(i)] = true;
  for (size_t i = 0; i < own_.size(); i++)
    if (!given[i] || externals()[i].element != Element::f32) own_[i] = zeros(static_cast<size_t>(externals()[i].size) * sizeof(float));
}

void Engine::check(const std::vector<int>& places, const void* const* pointers, const char* what) const {
  if (!pointers) throw std::invalid_argument(std::string(what) + "s are a null pointer");
  for (size_t i = 0; i < places.size(); i++) {
    const External& e = externals()[static_cast<size_t>(places[i])];
    const size_t alignment = element_bytes(e.element);
    if (!pointers[i]) throw std::invalid_argument(std::string(what) + " " + e.name + " is a null pointer");
    if (reinterpret_cast<uintptr_t>(pointers[i]) % alignment) throw std::invalid_argument(std::string(what) + " " + e.name + " is not aligned to " + std::to_string(alignment) + " bytes");
  }
}

void Engine::choose(int level) {
  if (level < 0 || level >= levels()) throw std::invalid_argument("level " + std::to_string(level + 1) + " is not in 1.." + std::to_string(levels()));
  level_ = level;
}

void Engine::run(const void* const* inputs, void* const* outputs, int level) {
  check(artifact_.inputs, inputs, "input");
  check(artifact_.outputs, outputs, "output");
  const std::scoped_lock lock(mutex_);
  choose(level);
  run_once(inputs, outputs);
}

void Engine::run_once(const void* const* inputs, void* const* outputs) {
  for (size_t i = 0; i < own_.size(); i++) bound_[i] = static_cast<float*>(own_[i].get());
  for (size_t i = 0; i < artifact_.outputs.size(); i++) {
    const size_t at = static_cast<size_t>(artifact_.outputs[i]);
    if (!own_[at]) bound_[at] = static_cast<float*>(outputs[i]);
  }
  for (size_t i = 0; i < artifact_.inputs.size(); i++) {
    const size_t at = static_cast<size_t>(artifact_.inputs[i]);
    if (own_[at])
      narrow(externals()[at], inputs[i], static_cast<int32_t*>(own_[at].get()));
    else
      bound_[at] = static_cast<float*>(const_cast<void*>(inputs[i]));  // no step writes into an input: the program has checked
  }
  for (const auto& [begin, end] : artifact_.segments) artifact_.program->run(begin, end, bound_, level_);
  for (size_t i = 0; i < artifact_.outputs.size(); i++) {
    const size_t at = static_cast<size_t>(artifact_.outputs[i]);
    if (own_[at])
      widen(externals()[at], static_cast<const int32_t*>(own_[at].get()), outputs[i]);
    else if (bound_[at] != outputs[i])  // an input that is an output as well, or an output asked for twice
      std::memmove(outputs[i], bound_[at], externals()[at].bytes());
  }
}

int64_t Engine::compiled_batch() const {
  int64_t found = -1;
  for (const auto* places : {&artifact_.inputs, &artifact_.outputs})
    for (const int i : *places) {
      const auto& shape = externals()[static_cast<size_t>(i)].shape;
      const int64_t batch = shape.empty() ? 0 : shape.front();
      if (batch == 0 || (found >= 0 && found != batch)) throw std::invalid_argument("inputs and outputs share no batch axis: only the compiled shapes run");
      found = batch;
    }
  return found;
}

void Engine::run(int64_t batch, const void* const* inputs, void* const* outputs, int level) {
  if (batch < 0) throw std::invalid_argument("a batch of " + std::to_string(batch) + " is less than nothing");
  const int64_t piece = compiled_batch();
  if (batch == 0) return;
  check(artifact_.inputs, inputs, "input");
  check(artifact_.outputs, outputs, "output");
  std::vector<const void*> from(inputs, inputs + artifact_.inputs.size());
  std::vector<void*> to(outputs, outputs + artifact_.outputs.size());
  const std::scoped_lock lock(mutex_);
  choose(level);
  for (; batch >= piece; batch -= piece) {
    run_once(from.data(), to.data());
    for (size_t i = 0; i < from.size(); i++) from[i] = static_cast<const char*>(from[i]) + externals()[static_cast<size_t>(artifact_.inputs[i])].bytes();
    for (size_t i = 0; i < to.size(); i++) to[i] = static_cast<char*>(to[i]) + externals()[static_cast<size_t>(artifact_.outputs[i])].bytes();
  }
  if (batch) run_rest(batch, from.data(), to.data());
}

// Fewer samples than compiled: the others are zeros, and their outputs are dropped.
void Engine::run_rest(int64_t batch, const void* const* inputs, void* const* outputs) {
  const auto share = [&](const External& e) { return e.bytes() / static_cast<size_t>(e.shape.front()) * static_cast<size_t>(batch); };
  std::vector<Memory> memory;
  std::vector<const void*> from;
  std::vector<void*> to;
  for (size_t i = 0; i < artifact_.inputs.size(); i++) {
    const External& e = externals()[static_cast<size_t>(artifact_.inputs[i])];
    memory.push_back(zeros(e.bytes()));
    std::memcpy(memory.back().get(), inputs[i], share(e));
    from.push_back(memory.back().get());
  }
  for (const int i : artifact_.outputs) {
    memory.push_back(zeros(externals()[static_cast<size_t>(i)].bytes()));
    to.push_back(memory.back().get());
  }
  run_once(from.data(), to.data());
  for (size_t i = 0; i < artifact_.outputs.size(); i++) std::memcpy(outputs[i], to[i], share(externals()[static_cast<size_t>(artifact_.outputs[i])]));
}

}  // namespace openwork
