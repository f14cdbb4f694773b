#include "json.hpp"

#include <charconv>
#include <cmath>
#include <stdexcept>

namespace openwork {
namespace {

constexpr int kMaxDepth = 64;

[[noreturn]] void wrong(const char* what, const char* wanted) {
  throw std::invalid_argument(std::string(what) + " is not " + wanted);
}

void append_utf8(std::string& text, uint32_t code) {
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | code >> 6);
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | code >> 12);
    text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | code >> 18);
    text += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  }
}

}  // namespace

class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : at_(text.data()), end_(text.data() + text.size()) {}

  Json whole() {
    Json value = read(0);
    space();
    if (at_ != end_) fail();
    return value;
  }

 private:
  [[noreturn]] static void fail() { throw std::invalid_argument("not JSON"); }

  void space() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\t' || *at_ == '\n' || *at_ == '\r')) at_++;
  }

  bool take(char c) {
    if (at_ == end_ || *at_ != c) return false;
    at_++;
    return true;
  }

  void word(std::string_view wanted) {
    if (std::string_view(at_, static_cast<size_t>(end_ - at_)).substr(0, wanted.size()) != wanted) fail();
    at_ += wanted.size();
  }

  Json read(int depth) {
    if (depth > kMaxDepth) throw std::invalid_argument("JSON is nested too deeply");
    space();
    if (at_ == end_) fail();
    Json made;
    switch (*at_) {
      case '{': made.value_ = object(depth); break;
      case '[': made.value_ = list(depth); break;
      case '"': made.value_ = string(); break;
      case 't': word("true"); made.value_ = true; break;
      case 'f': word("false"); made.value_ = false; break;
      case 'n': word("null"); break;
      default: number(made);
    }
    return made;
  }

  Json::List list(int depth) {
    Json::List items;
    at_++;
    space();
    if (take(']')) return items;
    do {
      items.push_back(read(depth + 1));
      space();
    } while (take(','));
    if (!take(']')) fail();
    return items;
  }

  Json::Object object(int depth) {
    Json::Object members;
    at_++;
    space();
    if (take('}')) return members;
    do {
      space();
      if (at_ == end_ || *at_ != '"') fail();
      std::string key = string();
      space();
      if (!take(':')) fail();
      members.emplace_back(std::move(key), read(depth + 1));
      space();
    } while (take(','));
    if (!take('}')) fail();
    return members;
  }

  uint32_t hex4() {
    if (end_ - at_ < 4) fail();
    uint32_t code = 0;
    const auto [stop, error] = std::from_chars(at_, at_ + 4, code, 16);
    if (error != std::errc() || stop != at_ + 4) fail();
    at_ += 4;
    return code;
  }

  void escape(std::string& text) {
    if (at_ == end_) fail();
    switch (const char c = *at_++) {
      case '"': case '\\': case '/': text += c; break;
      case 'b': text += '\b'; break;
      case 'f': text += '\f'; break;
      case 'n': text += '\n'; break;
      case 'r': text += '\r'; break;
      case 't': text += '\t'; break;
      case 'u': {
        uint32_t code = hex4();
        if (code >= 0xD800 && code < 0xDC00) {  // a pair of surrogates is one character
          word("\\u");
          const uint32_t low = hex4();
          if (low < 0xDC00 || low > 0xDFFF) fail();
          code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
        }
        append_utf8(text, code);
        break;
      }
      default: fail();
    }
  }

  std::string string() {
    std::string text;
    at_++;
    for (;;) {
      if (at_ == end_) fail();
      const char c = *at_++;
      if (c == '"') return text;
      if (static_cast<unsigned char>(c) < 0x20) fail();
      if (c == '\\')
        escape(text);
      else
        text += c;
    }
  }

  void number(Json& made) {
    const char* stop = at_;
    bool whole = true;
    while (stop != end_ && ((*stop >= '0' && *stop <= '9') || *stop == '-' || *stop == '+' || *stop == '.' || *stop == 'e' || *stop == 'E')) {
      if (*stop == '.' || *stop == 'e' || *stop == 'E') whole = false;
      stop++;
    }
    if (whole) {
      int64_t value = 0;
      const auto [used, error] = std::from_chars(at_, stop, value);
      if (error != std::errc() || used != stop || stop == at_) fail();
      made.value_ = value;
    } else {
      double value = 0;
      const auto [used, error] = std::from_chars(at_, stop, value);
      if (error != std::errc() || used != stop || !std::isfinite(value)) fail();
      made.value_ = value;
    }
    at_ = stop;
  }

  const char* at_;
  const char* end_;
};

Json Json::parse(std::string_view text) { return JsonReader(text).whole(); }

bool Json::boolean(const char* what) const {
  if (const bool* v = std::get_if<bool>(&value_)) return *v;
  wrong(what, "true or false");
}

int64_t Json::integer(const char* what) const {
  if (const int64_t* v = std::get_if<int64_t>(&value_)) return *v;
  wrong(what, "a whole number");
}

double Json::number(const char* what) const {
  if (const double* v = std::get_if<double>(&value_)) return *v;
  if (const int64_t* v = std::get_if<int64_t>(&value_)) return static_cast<double>(*v);
  wrong(what, "a number");
}

const std::string& Json::string(const char* what) const {
  if (const std::string* v = std::get_if<std::string>(&value_)) return *v;
  wrong(what, "text");
}

const Json::List& Json::list(const char* what) const {
  if (const List* v = std::get_if<List>(&value_)) return *v;
  wrong(what, "a list");
}

const Json::Object& Json::object(const char* what) const {
  if (const Object* v = std::get_if<Object>(&value_)) return *v;
  wrong(what, "an object");
}

const Json* Json::find(std::string_view key) const {
  const Object* members = std::get_if<Object>(&value_);
  if (!members) return nullptr;
  for (const auto& [name, value] : *members)
    if (name == key) return &value;
  return nullptr;
}

const Json& Json::at(const char* key) const {
  const Json* found = find(key);
  if (!found) throw std::invalid_argument(std::string(key) + " is missing");
  return *found;
}

}  // namespace openwork
