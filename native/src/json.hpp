// JSON as artifacts hold it: a small strict reader for input that may be hostile.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace openwork {

class Json {
 public:
  using List = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // in the file's order

  // Throws std::invalid_argument for what is not JSON, holds NaN or infinity, or nests deeper than 64.
  static Json parse(std::string_view text);

  bool is_null() const { return std::holds_alternative<std::monostate>(value_); }
  bool is_list() const { return std::holds_alternative<List>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }

  // Each throws std::invalid_argument, naming `what`, where the value is of another kind.
  bool boolean(const char* what) const;
  int64_t integer(const char* what) const;  // a whole number written without fraction or exponent
  double number(const char* what) const;
  const std::string& string(const char* what) const;
  const List& list(const char* what) const;
  const Object& object(const char* what) const;
  // The member of an object, or null if it has none of that name.
  const Json* find(std::string_view key) const;
  const Json& at(const char* key) const;

 private:
  friend class JsonReader;
  std::variant<std::monostate, bool, int64_t, double, std::string, List, Object> value_;
};

}  // namespace openwork
