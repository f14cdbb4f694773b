#include "tensors.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace openwork {
namespace {

struct Known {
  const char* name;
  uint64_t bytes;
  std::optional<Type> type;
};

constexpr Known kTypes[] = {
    {"F32", 4, Type::f32}, {"I32", 4, Type::i32}, {"U16", 2, Type::u16}, {"U8", 1, Type::u8}, {"I8", 1, Type::i8},
    {"F64", 8, {}},        {"I64", 8, {}},        {"U64", 8, {}},        {"U32", 4, {}},      {"F16", 2, {}},
    {"I16", 2, {}},        {"BOOL", 1, {}},
};

const Known* known(const std::string& name) {
  for (const Known& type : kTypes)
    if (name == type.name) return &type;
  return nullptr;
}

[[noreturn]] void wrong(const std::string& name, const std::string& what) {
  throw std::invalid_argument("array '" + name.substr(0, 60) + "' " + what);
}

uint64_t count(const Json& json, const std::string& name, const char* what) {
  const int64_t value = json.integer(what);
  if (value < 0) wrong(name, std::string(what) + " is " + std::to_string(value));
  return static_cast<uint64_t>(value);
}

// Elements of an array of that shape, `limit` at most.
uint64_t elements(const Json& json, const std::string& name, uint64_t limit) {
  uint64_t size = 1;
  for (const Json& axis : json.at("shape").list("shape"))
    if (__builtin_mul_overflow(size, count(axis, name, "a size"), &size)) wrong(name, "is larger than the file");
  if (size > limit) wrong(name, "is larger than the file");
  return size;
}

struct Entry {
  std::string name;
  uint64_t begin, end;
  std::string type;
  uint64_t size, bytes;  // as shape and type say
};

Entry entry(const std::string& name, const Json& json, uint64_t limit) {
  const Json::List& offsets = json.at("data_offsets").list("data_offsets");
  if (offsets.size() != 2) wrong(name, "needs two offsets");
  const std::string& type = json.at("dtype").string("dtype");
  const Known* const found = known(type);
  if (!found) wrong(name, "has the unknown type '" + type.substr(0, 20) + "'");
  const uint64_t size = elements(json, name, limit);
  return {name, count(offsets[0], name, "an offset"), count(offsets[1], name, "an offset"), type, size, size * found->bytes};
}

}  // namespace

std::map<std::string, Stored, std::less<>> stored_arrays(const Json& header, std::span<const uint8_t> data) {
  std::vector<Entry> entries;
  for (const auto& [name, json] : header.object("the header"))
    if (name != "__metadata__") entries.push_back(entry(name, json, data.size()));
  std::ranges::sort(entries, {}, [](const Entry& e) { return std::pair(e.begin, e.end); });
  std::map<std::string, Stored, std::less<>> found;
  uint64_t end = 0;
  for (const Entry& e : entries) {
    if (e.begin != end || e.end < e.begin || e.end > data.size()) wrong(e.name, "leaves a hole, overlaps another or is cut off");
    if (e.end - e.begin != e.bytes) wrong(e.name, "has " + std::to_string(e.end - e.begin) + " bytes, its shape and type need " + std::to_string(e.bytes));
    if (!found.try_emplace(e.name, Stored{e.type, data.subspan(e.begin, e.bytes), e.size}).second) wrong(e.name, "occurs twice");
    end = e.end;
  }
  if (end != data.size()) throw std::invalid_argument(std::to_string(data.size() - end) + " bytes after the last array belong to none");
  return found;
}

Array step_array(const Stored& stored, const std::shared_ptr<const void>& owner) {
  const auto type = known(stored.type)->type;
  if (!type) throw std::invalid_argument("an array's type is none of float32, int32, uint16, uint8, int8");
  return {*type, stored.bytes.data(), stored.size, owner};
}

Array unpacked(const Array& packed, const Json& how) {
  constexpr int64_t kFew = 4;  // bits, as in formats/artifact.py
  const int64_t bits = how.at("bits").integer("bits");
  const uint64_t size = elements(how, "packed", 8 * packed.size);  // a bit each, at least
  const bool fits = bits >= 1 && bits <= kFew && packed.type == Type::u8 && packed.size == (size * static_cast<uint64_t>(bits) + 7) / 8;
  if (!fits) throw std::invalid_argument(std::to_string(packed.size) + " bytes do not hold " + std::to_string(size) + " numbers of " + std::to_string(bits) + " bits");
  const auto* const from = static_cast<const uint8_t*>(packed.data);
  const auto whole = std::make_shared<std::vector<int8_t>>(size);
  const int spare = static_cast<int>(8 - bits);
  for (uint64_t i = 0, at = 0; i < size; i++, at += static_cast<uint64_t>(bits)) {
    const uint64_t byte = at / 8;
    const unsigned two = from[byte] | (byte + 1 < packed.size ? unsigned{from[byte + 1]} << 8 : 0u);
    (*whole)[i] = static_cast<int8_t>(static_cast<int8_t>(static_cast<uint8_t>(two >> (at % 8) << spare)) >> spare);
  }
  return {Type::i8, whole->data(), size, whole};
}

}  // namespace openwork
