#include "artifact.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <system_error>
#include <thread>

#include "json.hpp"
#include "sha256.hpp"
#include "tensors.hpp"

namespace openwork {
namespace {

constexpr int64_t kVersion = 2;
constexpr uint64_t kHeaderLimit = 100'000'000;  // bytes; safetensors' own limit
constexpr size_t kPiece = size_t{1} << 20;
constexpr std::string_view kMark = "\"digest\":\"";
constexpr size_t kDigest = 64;  // characters
constexpr size_t kMaxRank = 64;

constexpr std::pair<const char*, size_t> kElements[] = {
    {"float32", 4}, {"int64", 8}, {"int32", 4}, {"int16", 2}, {"int8", 1}, {"uint8", 1}, {"bool", 1},
};

std::string shown(const std::string& text) { return "'" + text.substr(0, 60) + "'"; }

// ---- the digest ----

// Hashes of the header, its digest taken as zeros, and of each MiB after it; threads take piece after piece.
std::vector<Hash> piece_hashes(const Content& content, size_t start, size_t digest_at, int threads) {
  const auto bytes = content.bytes;
  const auto data = bytes.subspan(start);
  std::vector<Hash> hashes(1 + (data.size() + kPiece - 1) / kPiece);
  std::atomic<size_t> next{1};
  const auto take = [&] {
    for (size_t i; (i = next.fetch_add(1)) < hashes.size();) hashes[i] = sha256(data.subspan((i - 1) * kPiece, std::min(kPiece, data.size() - (i - 1) * kPiece)));
  };
  std::vector<std::jthread> helpers;
  try {
    while (helpers.size() + 1 < std::min(static_cast<size_t>(threads), hashes.size() / 2)) helpers.emplace_back(take);
  } catch (const std::system_error&) {
    // fewer threads than wished: this one does what they would have done
  }
  Sha256 header;
  header.update(bytes.first(digest_at));
  header.update(std::vector<uint8_t>(kDigest, '0'));
  header.update(bytes.subspan(digest_at + kDigest, start - digest_at - kDigest));
  hashes[0] = header.finish();
  take();
  helpers.clear();  // waits for them
  return hashes;
}

// Where the data begin, in a file that matches its digest.
size_t checked_start(const Content& content, int threads) {
  const auto bytes = content.bytes;
  uint64_t size = 0;
  for (size_t i = 0; i < 8 && bytes.size() >= 16; i++) size |= uint64_t{bytes[i]} << (8 * i);
  if (bytes.size() < 16 || size < 2 || size > std::min<uint64_t>(bytes.size() - 8, kHeaderLimit) || bytes[8] != '{')
    throw ArtifactError(content.name + " is not an Openwork artifact, or was cut off (" + std::to_string(bytes.size()) + " bytes)");
  const size_t start = 8 + size;
  // JSON escapes the quotes in its texts: the mark is unique
  const size_t mark = std::string_view(reinterpret_cast<const char*>(bytes.data()), start).find(kMark);
  if (mark == std::string_view::npos || mark + kMark.size() + kDigest > start)
    throw ArtifactError(content.name + " is not an Openwork artifact: it has no digest");
  const size_t at = mark + kMark.size();
  Sha256 whole;
  for (const Hash& piece : piece_hashes(content, start, at, threads)) whole.update(piece);
  std::string digest;
  for (const uint8_t byte : whole.finish()) digest += {"0123456789abcdef"[byte >> 4], "0123456789abcdef"[byte & 15]};
  if (std::memcmp(digest.data(), bytes.data() + at, kDigest))
    throw ArtifactError(content.name + " is damaged: its content does not match its digest; copy or compile it again");
  return start;
}

// ---- the program ----

int place(const Json& json, size_t limit, const char* what) {
  const int64_t value = json.integer(what);
  if (value < 0 || value >= static_cast<int64_t>(limit)) throw std::invalid_argument(std::string(what) + " " + std::to_string(value) + " is not one of " + std::to_string(limit));
  return static_cast<int>(value);
}

External external(const Json& json) {
  External made{json.at("name").string("name"), {}, {}, 1};
  const std::string& type = json.at("dtype").string("dtype");
  const auto* const found = std::ranges::find(kElements, type, [](const auto& known) { return std::string_view(known.first); });
  if (found == std::end(kElements)) throw std::invalid_argument("a buffer's type " + shown(type) + " is unknown");
  made.element = static_cast<Element>(found - kElements);
  for (const Json& axis : json.at("shape").list("shape")) {
    made.shape.push_back(axis.integer("a size"));
    if (made.shape.back() < 1 || made.shape.back() >= kMaxSize || (made.size *= made.shape.back()) >= kMaxSize)
      throw std::invalid_argument("the sizes of buffer " + shown(made.name) + " are out of range");
  }
  if (made.shape.size() > kMaxRank) throw std::invalid_argument("buffer " + shown(made.name) + " has too many axes");
  return made;
}

std::vector<int> places(const Json& program, const char* key, size_t limit) {
  std::vector<int> found;
  for (const Json& item : program.at(key).list(key)) found.push_back(place(item, limit, "buffer"));
  if (found.empty()) throw std::invalid_argument(std::string("it has no ") + key);
  return found;
}

// Operators that run in PyTorch, each once.
std::string operators_of_pytorch(const Json::List& segments) {
  std::set<std::string> names;
  for (const Json& segment : segments)
    for (const Json& call : segment.at("calls").list("calls")) names.insert(call.at("target").string("target"));
  std::string joined;
  for (const std::string& name : names) joined += (joined.empty() ? "" : ", ") + name;
  return joined;
}

void add_step(Artifact& artifact, const Json& step, size_t number, const std::map<std::string, Stored, std::less<>>& stored, const Content& content) {
  const std::string& op = step.at("op").string("op");
  const std::string& name = step.at("name").string("name");
  try {
    std::map<std::string, Array> arrays;
    for (const Json& item : step.at("arrays").list("arrays")) {
      const std::string& role = item.string("an array's name");
      const auto found = stored.find(std::to_string(number) + "." + role);
      if (found == stored.end()) throw std::invalid_argument("array " + shown(role) + " is missing");
      const Array array = step_array(found->second, content.owner);
      const Json* const packed = step.find("packed");
      const Json* const how = packed ? packed->find(role) : nullptr;
      arrays.insert_or_assign(role, how ? unpacked(array, *how) : array);
    }
    artifact.program->add(op, Fields(step, arrays));
  } catch (const std::invalid_argument& error) {
    throw std::invalid_argument("step " + shown(name) + " (" + op.substr(0, 40) + "): " + error.what());
  }
}

Artifact artifact_of(const Json& head, const Json& header, const Content& content, size_t start, int threads, const std::string& isa) {
  const auto stored = stored_arrays(header, content.bytes.subspan(start));
  const Json& program = head.at("program");
  const Json::List& segments = program.at("segments").list("segments");
  if (const std::string names = operators_of_pytorch(segments); !names.empty())
    throw ArtifactError(content.name + " runs " + names + " in PyTorch, so it runs from Python only");
  Artifact made;
  for (const Json& item : program.at("externals").list("externals")) made.externals.push_back(external(item));
  made.inputs = places(program, "inputs", made.externals.size());
  made.outputs = places(program, "outputs", made.externals.size());
  if (std::set<int>(made.inputs.begin(), made.inputs.end()).size() < made.inputs.size()) throw std::invalid_argument("an input is listed twice");
  std::vector<int64_t> sizes;
  for (const External& e : made.externals) sizes.push_back(e.size);
  const int64_t turns = program.at("turns").integer("turns");
  if (turns < 1 || turns > INT32_MAX || (turns > 1 && segments.size() != 1)) throw std::invalid_argument("the program's turns are out of range");
  made.program = std::make_unique<Program>(program.at("arena").integer("arena"), std::move(sizes), threads, isa, made.inputs, static_cast<int>(turns));
  const Json::List& steps = program.at("steps").list("steps");
  for (size_t i = 0; i < steps.size(); i++) add_step(made, steps[i], i, stored, content);
  for (const Json& segment : segments) {
    const int begin = place(segment.at("begin"), steps.size() + 1, "a segment's step"), end = place(segment.at("end"), steps.size() + 1, "a segment's step");
    if (begin > end) throw std::invalid_argument("a segment ends before it begins");
    made.segments.emplace_back(begin, end);
  }
  return made;
}

}  // namespace

size_t element_bytes(Element element) { return kElements[static_cast<size_t>(element)].second; }

Artifact read_artifact(const Content& content, int threads, const std::string& isa) {
  const size_t start = checked_start(content, threads);
  const std::string_view text(reinterpret_cast<const char*>(content.bytes.data()) + 8, start - 8);
  Json header, head;
  try {
    header = Json::parse(text);
    head = Json::parse(header.at("__metadata__").at("openwork").string("openwork"));
  } catch (const std::invalid_argument& error) {
    throw ArtifactError(content.name + " is not an Openwork artifact: its header cannot be read (" + error.what() + ")");
  }
  try {
    const int64_t version = head.at("format").integer("format");
    if (version != kVersion)
      throw ArtifactError(content.name + " has format " + std::to_string(version) + ", this Openwork reads format " + std::to_string(kVersion) + "; compile the model again");
    return artifact_of(head, header, content, start, threads, isa);
  } catch (const std::invalid_argument& error) {
    throw ArtifactError(content.name + " is damaged: " + error.what());
  }
}

}  // namespace openwork
