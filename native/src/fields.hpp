// What a step is made of: JSON fields and arrays by name, as the artifact holds them. Reading one checks its kind and range.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "json.hpp"

namespace openwork {

enum class Type { f32, i32, u16, u8, i8 };

// A typed array that somebody else owns; `owner` keeps it alive.
struct Array {
  Type type;
  const void* data;
  size_t size;  // elements
  std::shared_ptr<const void> owner;
};

// A view of an array together with what keeps it alive: weights are used where they lie, in the file's mapping.
template <class T>
class Held {
 public:
  Held() = default;
  Held(std::span<const T> items, std::shared_ptr<const void> owner) : items_(items), owner_(std::move(owner)) {}
  const T* data() const { return items_.data(); }
  size_t size() const { return items_.size(); }
  bool empty() const { return items_.empty(); }
  const T& operator[](size_t i) const { return items_[i]; }
  std::span<const T> span() const { return items_; }

 private:
  std::span<const T> items_;
  std::shared_ptr<const void> owner_;
};

class Fields {
 public:
  Fields(const Json& json, const std::map<std::string, Array>& arrays) : json_(json), arrays_(arrays) {}

  bool boolean(const char* name) const { return json_.at(name).boolean(name); }
  bool boolean(const char* name, bool otherwise) const { return given(name) ? boolean(name) : otherwise; }
  int64_t integer(const char* name) const { return json_.at(name).integer(name); }
  int64_t integer(const char* name, int64_t otherwise) const { return given(name) ? integer(name) : otherwise; }
  // An integer that fits into 31 bits: a size, a count, a stride of positions.
  int small(const char* name) const;
  int small(const char* name, int otherwise) const { return given(name) ? small(name) : otherwise; }
  float number(const char* name) const { return static_cast<float>(json_.at(name).number(name)); }
  float number(const char* name, float otherwise) const { return given(name) ? number(name) : otherwise; }
  std::string string(const char* name) const { return json_.at(name).string(name); }
  std::string string(const char* name, const char* otherwise) const { return given(name) ? string(name) : otherwise; }
  // A list of `count` small integers; any number of them if count is -1.
  std::vector<int> numbers(const char* name, int count = -1) const;
  // The positions that stretches [first, stride, count] shorten; none if the field is missing.
  std::vector<int32_t> positions(const char* name) const;
  // A list of such lists.
  std::vector<std::vector<int32_t>> position_lists(const char* name) const;
  const Json::List& list(const char* name) const { return json_.at(name).list(name); }
  // The fields of an object inside, with the same arrays.
  Fields inner(const char* name) const { return {json_.at(name), arrays_}; }
  bool given(const char* name) const;

  bool has_array(const char* name) const { return arrays_.count(name) != 0; }
  // Elements of an array of any type.
  size_t array_size(const char* name) const { return array(name).size; }
  Held<float> floats(const char* name) const;
  // The same for weights that vectors stream from a cache: copied unless they begin a cache line, or no cache holds them.
  Held<float> aligned_floats(const char* name) const;
  Held<int8_t> signed_bytes(const char* name) const;
  Held<int8_t> aligned_signed_bytes(const char* name) const;
  // Four of them in a word, aligned likewise.
  Held<int32_t> aligned_quads(const char* name) const;
  Held<uint8_t> bytes(const char* name) const;
  // Signed 32-bit or unsigned 16-bit integers.
  std::vector<int32_t> integers(const char* name) const;

 private:
  const Array& array(const char* name) const;

  const Json& json_;
  const std::map<std::string, Array>& arrays_;
};

}  // namespace openwork
