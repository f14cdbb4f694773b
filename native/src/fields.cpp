#include "fields.hpp"

#include <algorithm>
#include <new>

namespace openwork {
namespace {

constexpr int64_t kMaxPositions = int64_t{1} << 24;

[[noreturn]] void wrong(const char* name, const char* what) { throw std::invalid_argument(std::string(name) + " " + what); }

// Copied to the begin of a cache line unless it lies there, or no cache holds it: vectors that cross lines cost nothing where memory is
// the limit.
template <class T>
Held<T> aligned(const Held<T>& found) {
  constexpr size_t kLine = 64, kCached = size_t{8} << 20;  // bytes
  const size_t bytes = found.size() * sizeof(T);
  if (reinterpret_cast<uintptr_t>(found.data()) % kLine == 0 || (bytes > kCached && reinterpret_cast<uintptr_t>(found.data()) % alignof(T) == 0)) return found;
  const std::shared_ptr<T[]> copy(static_cast<T*>(::operator new[](bytes, std::align_val_t{kLine})), [](T* p) { ::operator delete[](p, std::align_val_t{kLine}); });
  if (bytes) __builtin_memcpy(copy.get(), found.data(), bytes);
  return {{copy.get(), found.size()}, copy};
}

int small_integer(const Json& json, const char* name) {
  const int64_t value = json.integer(name);
  if (value < INT32_MIN || value > INT32_MAX) wrong(name, "is out of range");
  return static_cast<int>(value);
}

std::vector<int32_t> expanded(const Json& stretches, const char* name) {
  std::vector<int32_t> found;
  int64_t total = 0;
  for (const Json& stretch : stretches.list(name)) {
    const Json::List& parts = stretch.list(name);
    if (parts.size() != 3) wrong(name, "holds a stretch that is not [first, stride, count]");
    const int64_t first = small_integer(parts[0], name), stride = small_integer(parts[1], name), count = small_integer(parts[2], name);
    total += count;
    if (count < 1 || total > kMaxPositions) wrong(name, "has a length out of range");
    const int64_t last = first + stride * (count - 1);
    if (last < INT32_MIN || last > INT32_MAX) wrong(name, "holds a position out of range");
    for (int64_t i = 0; i < count; i++) found.push_back(static_cast<int32_t>(first + stride * i));
  }
  return found;
}

}  // namespace

bool Fields::given(const char* name) const {
  const Json* found = json_.find(name);
  return found && !found->is_null();
}

int Fields::small(const char* name) const { return small_integer(json_.at(name), name); }

std::vector<int> Fields::numbers(const char* name, int count) const {
  std::vector<int> found;
  for (const Json& item : json_.at(name).list(name)) found.push_back(small_integer(item, name));
  if (count >= 0 && found.size() != static_cast<size_t>(count)) wrong(name, "has the wrong length");
  return found;
}

std::vector<int32_t> Fields::positions(const char* name) const {
  return given(name) ? expanded(json_.at(name), name) : std::vector<int32_t>();
}

std::vector<std::vector<int32_t>> Fields::position_lists(const char* name) const {
  std::vector<std::vector<int32_t>> found;
  for (const Json& list : json_.at(name).list(name)) found.push_back(expanded(list, name));
  return found;
}

const Array& Fields::array(const char* name) const {
  const auto found = arrays_.find(name);
  if (found == arrays_.end()) wrong(name, "is missing");
  return found->second;
}

Held<float> Fields::floats(const char* name) const {
  const Array& a = array(name);
  if (a.type != Type::f32) wrong(name, "is not an array of float32");
  if (reinterpret_cast<uintptr_t>(a.data) % alignof(float) == 0) return {{static_cast<const float*>(a.data), a.size}, a.owner};
  const auto copy = std::make_shared<std::vector<float>>(a.size);
  if (a.size) __builtin_memcpy(copy->data(), a.data, a.size * sizeof(float));
  return {*copy, copy};
}

Held<float> Fields::aligned_floats(const char* name) const { return aligned(floats(name)); }

Held<int8_t> Fields::signed_bytes(const char* name) const {
  const Array& a = array(name);
  if (a.type != Type::i8) wrong(name, "is not an array of int8");
  return {{static_cast<const int8_t*>(a.data), a.size}, a.owner};
}

Held<int8_t> Fields::aligned_signed_bytes(const char* name) const { return aligned(signed_bytes(name)); }

Held<int32_t> Fields::aligned_quads(const char* name) const {
  const Array& a = array(name);
  if (a.type != Type::i8) wrong(name, "is not an array of int8");
  if (a.size % sizeof(int32_t)) wrong(name, "does not hold whole quads");
  return aligned(Held<int32_t>({static_cast<const int32_t*>(a.data), a.size / sizeof(int32_t)}, a.owner));
}

Held<uint8_t> Fields::bytes(const char* name) const {
  const Array& a = array(name);
  if (a.type != Type::u8) wrong(name, "is not an array of uint8");
  return {{static_cast<const uint8_t*>(a.data), a.size}, a.owner};
}

std::vector<int32_t> Fields::integers(const char* name) const {
  const Array& a = array(name);
  std::vector<int32_t> found(a.size);
  if (a.type == Type::i32) {
    if (a.size) __builtin_memcpy(found.data(), a.data, a.size * sizeof(int32_t));
  } else if (a.type == Type::u16) {
    const char* from = static_cast<const char*>(a.data);
    for (size_t i = 0; i < a.size; i++) {
      uint16_t value;
      __builtin_memcpy(&value, from + 2 * i, 2);
      found[i] = value;
    }
  } else {
    wrong(name, "is not an array of int32 or uint16");
  }
  return found;
}

}  // namespace openwork
