// Changes an artifact so that it gets past the digest: lies in its JSON, in its arrays, in the table of arrays, and a right
// digest over them. One change in sixteen is of bytes at random, which the digest should find.

#include <algorithm>
#include <cstring>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "fuzz.hpp"
#include "json.hpp"
#include "sha256.hpp"

namespace openwork {
namespace {

using Random = std::mt19937;

size_t below(Random& random, size_t limit) { return limit ? random() % limit : 0; }

constexpr std::string_view kNasty[] = {
    "-9223372036854775808", "-2147483649", "-2147483648", "-5", "-1", "0", "1", "2", "3", "5", "7", "8", "15", "16", "17", "63", "64", "255",
    "1000", "32768", "65536", "16777215", "16777216", "1073741823", "1073741824", "2147483647", "2147483648", "1099511627776",
    "4611686018427387904", "9223372036854775807", "9223372036854775808", "0.5", "-1.5", "1e308", "1e-320", "1e999", "null", "true", "false",
    "\"\"", "\"7\"", "\"taps\"", "\"int64\"", "\"bool\"", "\"float32\"", "\"F32\"", "\"I64\"", "\"\\ud800\"", "[]", "[[]]", "[0]", "{}",
    "{\"value\":1}",
    "[[0,1,3]]", "[[0,0,16777216]]", "[[0,0,1099511627776]]", "[[0,-1,3]]", "[[2147483647,0,1]]", "[[5,3,2],[0,0,4]]"};

// ---- texts ----

struct Span {
  size_t begin, end;
  bool in_list;
};

// Where the values of a JSON text begin and end; lenient, for texts that have been changed before.
void find_values(std::string_view text, std::vector<Span>& found) {
  std::vector<Span> open;
  bool in_list = false;
  std::vector<bool> outer;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '{' || c == '[') {
      open.push_back({i++, 0, in_list});
      outer.push_back(in_list);
      in_list = c == '[';
    } else if ((c == '}' || c == ']') && !open.empty()) {
      in_list = outer.back();
      outer.pop_back();
      open.back().end = ++i;
      found.push_back(open.back());
      open.pop_back();
    } else if (c == '"') {
      const size_t begin = i++;
      while (i < text.size() && text[i] != '"') i += text[i] == '\\' ? 2 : 1;
      i = std::min(i + 1, text.size());
      if (i >= text.size() || text[i] != ':') found.push_back({begin, i, in_list});
    } else if (std::strchr(" \t\r\n,:}]", c)) {
      i++;
    } else {
      const size_t begin = i;
      while (i < text.size() && !std::strchr(" \t\r\n,:}]\"[{", text[i])) i++;
      found.push_back({begin, i, in_list});
    }
  }
}

std::string near(std::string_view number, Random& random) {
  char* end = nullptr;
  const std::string text(number);
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (end == text.c_str() || *end) return std::string(kNasty[below(random, std::size(kNasty))]);
  switch (below(random, 6)) {
    case 0: return std::to_string(-(value % 1000000));
    case 1: return std::to_string(value % 1000000 * 2);
    case 2: return std::to_string(value / 2);
    default: return std::to_string(value % (1LL << 60) + static_cast<long long>(below(random, 7)) - 3);
  }
}

void change_text(std::string& text, Random& random) {
  std::vector<Span> values;
  find_values(text, values);
  if (values.empty()) return;
  // short values first: most of a program is numbers
  Span at = values[below(random, values.size())];
  for (int i = 0; i < 2 && at.end - at.begin > 40; i++) at = values[below(random, values.size())];
  const std::string old = text.substr(at.begin, at.end - at.begin);
  const size_t kind = below(random, 32);
  if (kind < 18) {
    text.replace(at.begin, old.size(), near(old, random));
  } else if (kind < 22) {
    text.replace(at.begin, old.size(), kNasty[below(random, std::size(kNasty))]);
  } else if (kind < 26) {
    const Span other = values[below(random, values.size())];
    text.replace(at.begin, old.size(), text.substr(other.begin, other.end - other.begin));
  } else if (kind < 30 && at.in_list) {
    text.insert(at.end, "," + old);
  } else if (kind < 31) {  // taken out, with its name and one comma
    size_t begin = at.begin, end = at.end;
    if (!at.in_list && begin && text[begin - 1] == ':') begin = text.rfind('"', begin >= 3 ? begin - 3 : 0);
    if (begin != std::string::npos && begin && text[begin - 1] == ',') begin--;
    else if (end < text.size() && text[end] == ',') end++;
    if (begin < end) text.erase(begin, end - begin);
  } else if (!text.empty()) {
    text[below(random, text.size())] = static_cast<char>(random());
  }
}

std::string quoted(std::string_view text) {
  std::string made = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\')
      (made += '\\') += c;
    else if (static_cast<unsigned char>(c) < 0x20)
      made += "\\u001f";
    else
      made += c;
  }
  return made + '"';
}

// ---- files ----

struct Part {
  std::string name, type;
  std::vector<int64_t> shape;
  std::string bytes;
};

struct File {
  std::string text;
  std::vector<Part> parts;
};

std::optional<File> taken_apart(std::string_view content) {
  uint64_t size;
  if (content.size() < 8) return {};
  std::memcpy(&size, content.data(), 8);
  if (size > content.size() - 8) return {};
  const std::string_view data = content.substr(8 + size);
  try {
    const Json header = Json::parse(content.substr(8, size));
    File file{header.at("__metadata__").at("openwork").string(""), {}};
    for (const auto& [name, entry] : header.object("")) {
      if (name == "__metadata__") continue;
      Part part{name, entry.at("dtype").string(""), {}, {}};
      for (const Json& axis : entry.at("shape").list("")) part.shape.push_back(axis.integer(""));
      const auto& offsets = entry.at("data_offsets").list("");
      const int64_t begin = offsets.at(0).integer(""), end = offsets.at(1).integer("");
      if (begin < 0 || end < begin || static_cast<uint64_t>(end) > data.size()) return {};
      part.bytes = data.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
      file.parts.push_back(std::move(part));
    }
    return file;
  } catch (const std::exception&) {
    return {};
  }
}

const std::string kBlank(64, '0');

std::string header_of(const File& file) {
  std::string text = "{\"__metadata__\":{\"openwork\":" + quoted(file.text) + ",\"digest\":\"" + kBlank + "\"}";
  size_t at = 0;
  for (const Part& part : file.parts) {
    text += "," + quoted(part.name) + ":{\"dtype\":" + quoted(part.type) + ",\"shape\":[";
    for (size_t i = 0; i < part.shape.size(); i++) text += (i ? "," : "") + std::to_string(part.shape[i]);
    text += "],\"data_offsets\":[" + std::to_string(at) + "," + std::to_string(at + part.bytes.size()) + "]}";
    at += part.bytes.size();
  }
  return text + "}";
}

std::string put_together(std::string header, const File& file) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const uint64_t size = header.size();
  std::string content(reinterpret_cast<const char*>(&size), 8);
  content += header;
  for (const Part& part : file.parts) content += part.bytes;
  return content;
}

std::span<const uint8_t> bytes_of(std::string_view text) { return {reinterpret_cast<const uint8_t*>(text.data()), text.size()}; }

// Puts the digest in that the content should have.
void seal(std::string& content) {
  constexpr std::string_view kMark = "\"digest\":\"";
  uint64_t size;
  std::memcpy(&size, content.data(), 8);
  if (size > content.size() - 8) return;
  const size_t start = 8 + static_cast<size_t>(size), at = content.find(kMark) + kMark.size();
  if (at < kMark.size() || at + 64 > start) return;
  content.replace(at, 64, kBlank);
  Sha256 whole;
  whole.update(sha256(bytes_of(content).first(start)));
  for (size_t i = start; i < content.size(); i += 1 << 20)
    whole.update(sha256(bytes_of(content).subspan(i, std::min<size_t>(1 << 20, content.size() - i))));
  std::string digest;
  for (const uint8_t byte : whole.finish()) digest += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  content.replace(at, 64, digest);
}

void change_array(File& file, Random& random) {
  if (file.parts.empty()) return;
  Part& part = file.parts[below(random, file.parts.size())];
  const size_t width = part.type == "F32" || part.type == "I32" ? 4 : part.type == "U16" ? 2 : 1;
  const size_t count = part.bytes.size() / width;
  constexpr int32_t kNumbers[] = {0, 1, 2, 3, 7, 16, 100, 127, 255, 32767, 65535, 1 << 24, INT32_MAX, INT32_MIN, -1, -2};
  switch (below(random, 8)) {
    case 0: case 1: case 2:  // one element
      if (count) std::memcpy(&part.bytes[below(random, count) * width], &kNumbers[below(random, std::size(kNumbers))], width);
      break;
    case 3:
      if (count) part.bytes[below(random, part.bytes.size())] ^= static_cast<char>(1 << below(random, 8));
      break;
    case 4: case 5: {  // another length, truly
      const size_t length = below(random, 2) ? below(random, count + 1) : count + 1 + below(random, 40);
      part.bytes.resize(length * width);
      part.shape = {static_cast<int64_t>(length)};
      break;
    }
    case 6: part.type = std::vector{"F32", "I32", "U16", "U8", "I8", "I64", "BOOL", "F16"}[below(random, 8)]; break;
    default:
      if (below(random, 2))
        file.parts.erase(file.parts.begin() + (&part - file.parts.data()));
      else
        std::swap(part.name, file.parts[below(random, file.parts.size())].name);
  }
}

void change_bytes(std::string& content, Random& random) {
  for (size_t i = 1 + below(random, 4); i--;) {
    if (content.empty()) return;
    const size_t at = below(random, content.size());
    switch (below(random, 4)) {
      case 0: content[at] ^= static_cast<char>(1 << below(random, 8)); break;
      case 1: content[at] = static_cast<char>(random()); break;
      case 2: content.erase(at, 1 + below(random, 30)); break;
      default: content.insert(at, std::string(1 + below(random, 30), static_cast<char>(random())));
    }
  }
}

std::string changed(std::string content, Random& random) {
  auto file = taken_apart(content);
  if (!file || below(random, 16) == 0) {
    change_bytes(content, random);
    if (content.size() >= 8 && below(random, 2)) seal(content);
    return content;
  }
  std::string header;
  for (size_t i = below(random, 2) ? 1 : 1 + below(random, 4); i--;) {
    const size_t kind = below(random, 32);
    if (kind < 22)
      change_text(file->text, random);
    else if (kind < 31)
      change_array(*file, random);
    else
      change_text(header = header_of(*file), random);
  }
  std::string made = put_together(header.empty() ? header_of(*file) : header, *file);
  if (below(random, 32) == 0) change_bytes(made, random);
  if (made.size() >= 8) seal(made);
  return made;
}

}  // namespace
}  // namespace openwork

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size, unsigned int seed) {
  openwork::Random random(seed);
  const std::string made = openwork::changed({reinterpret_cast<const char*>(data), size}, random);
  const size_t length = std::min(made.size(), max_size);
  std::copy_n(made.begin(), length, data);
  return length;
}
