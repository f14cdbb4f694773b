// The native library for tests that run elsewhere: answers over a pipe what the Python module answers in its own process,
// so that one test suite serves machines without Python (emulated, or at the other end of a wire).
//
//   call:    text length, data length (uint64 each), JSON text, data
//   answer:  kind (uint64: 0 fine, else which exception), length (uint64), bytes
//
// Numbers are little-endian; data are the arrays that the JSON names as [name, type, length], one after another.
// tests/native/remote.py is the other end.

#include <cstdio>
#include <cstring>
#include <functional>

#include "cpu.hpp"
#include "program.hpp"

namespace openwork {
namespace {

bool read_bytes(void* into, size_t bytes) { return bytes == 0 || std::fread(into, 1, bytes, stdin) == bytes; }

void answer(uint64_t kind, const void* data, uint64_t bytes) {
  const uint64_t head[] = {kind, bytes};
  std::fwrite(head, sizeof head, 1, stdout);
  if (bytes) std::fwrite(data, 1, bytes, stdout);
  std::fflush(stdout);
}

std::string bytes_of(std::span<const float> items) { return {reinterpret_cast<const char*>(items.data()), items.size_bytes()}; }
std::string bytes_of(std::span<const double> items) { return {reinterpret_cast<const char*>(items.data()), items.size_bytes()}; }

std::pair<Type, size_t> type_named(const std::string& name) {
  if (name == "float32") return {Type::f32, 4};
  if (name == "int32") return {Type::i32, 4};
  if (name == "uint16") return {Type::u16, 2};
  if (name == "uint8") return {Type::u8, 1};
  if (name == "int8") return {Type::i8, 1};
  throw std::invalid_argument("an array's type is none of float32, int32, uint16, uint8, int8");
}

// One call's JSON and its arrays, each in memory of its own, so that a read beyond an end is seen by who looks for it.
class Call {
 public:
  Call(std::string_view text, const char* data, size_t bytes) : json(Json::parse(text)) {
    if (!json.find("arrays")) return;
    for (const Json& entry : json.at("arrays").list("arrays")) {
      const auto& parts = entry.list("arrays");
      const auto [type, width] = type_named(parts.at(1).string("type"));
      const size_t length = static_cast<size_t>(parts.at(2).integer("length"));
      require(length <= bytes / width, "an array is longer than the data sent");
      const auto memory = std::make_shared<std::vector<char>>(data, data + length * width);
      data += length * width;
      bytes -= length * width;
      const Array array = {type, memory->data(), length, memory};
      order.push_back(array);
      arrays.emplace(parts.at(0).string("name"), array);
    }
  }

  int64_t integer(const char* name) const { return json.at(name).integer(name); }
  int small(const char* name) const { return static_cast<int>(integer(name)); }
  std::string string(const char* name) const { return json.at(name).string(name); }
  // The arrays as buffers that steps may write.
  std::vector<float*> buffers() const {
    std::vector<float*> found;
    for (const Array& array : order) found.push_back(const_cast<float*>(static_cast<const float*>(array.data)));
    return found;
  }

  Json json;
  std::map<std::string, Array> arrays;
  std::vector<Array> order;
};

class Server {
 public:
  std::string respond(const Call& call) {
    const auto known = answers_.find(call.string("call"));
    require(known != answers_.end(), "unknown call");
    return known->second(call);
  }

 private:
  Program& program(const Call& call) { return *programs_.at(call.integer("program")); }

  std::vector<float*> checked_buffers(const Call& call) {
    const auto wanted = program(call).externals();
    require(call.order.size() == wanted.size(), "every external buffer must be given");
    for (size_t i = 0; i < wanted.size(); i++) require(static_cast<int64_t>(call.order[i].size) == wanted[i], "an external buffer has the wrong size");
    return call.buffers();
  }

  std::string run(const Call& call) {
    const auto buffers = checked_buffers(call);
    program(call).run(call.small("begin"), call.small("end"), buffers, call.small("level"));
    std::string changed;
    for (const Array& array : call.order) changed += bytes_of({static_cast<const float*>(array.data), array.size});
    return changed;
  }

  std::string profile(const Call& call) {
    std::string all;
    for (const auto& seconds : program(call).profile(call.small("repeats"), checked_buffers(call), call.small("level"))) all += bytes_of(seconds);
    return all;
  }

  std::string put_arena(const Call& call) {
    const auto arena = program(call).arena();
    require(call.order.size() == 1 && call.order[0].size == arena.size(), "the arena has another size");
    std::memcpy(arena.data(), call.order[0].data, arena.size_bytes());
    return "";
  }

  std::string make_program(const Call& call) {
    std::vector<int64_t> externals;
    for (const Json& size : call.json.at("externals").list("externals")) externals.push_back(size.integer("externals"));
    std::vector<int> inputs;
    for (const Json& place : call.json.at("inputs").list("inputs")) inputs.push_back(static_cast<int>(place.integer("inputs")));
    programs_[++last_] = std::make_unique<Program>(call.integer("arena"), externals, call.small("threads"), call.string("isa"), inputs, call.small("turns"));
    return std::to_string(last_);
  }

  static std::string activated(const Call& call) {
    const std::span<float> values(call.buffers().at(0), call.order.at(0).size);
    std::vector<float> parameters;
    for (const Json& parameter : call.json.at("parameters").list("parameters")) parameters.push_back(static_cast<float>(parameter.number("parameters")));
    activate(kernels_named(call.string("isa")), call.string("name"), parameters, values);
    return bytes_of(values);
  }

  static std::string isas() {
    std::string names;
    for (const Kernels* k : available_kernels()) names += std::string(names.empty() ? "" : " ") + k->name;
    return names;
  }

  static std::string features() {
    std::string names;
    for (const std::string& name : cpu_features()) names += (names.empty() ? "" : " ") + name;
    return names;
  }

  std::map<int64_t, std::unique_ptr<Program>> programs_;
  int64_t last_ = 0;
  const std::map<std::string, std::function<std::string(const Call&)>> answers_ = {
      {"isas", [](const Call&) { return isas(); }},
      {"cpu_features", [](const Call&) { return features(); }},
      {"lanes", [](const Call& c) { return std::to_string(kernels_named(c.string("isa")).lanes); }},
      {"widest_tile", [](const Call& c) { return std::to_string(widest_tile(kernels_named(c.string("isa")), c.small("mb"))); }},
      {"widest_quad_tile", [](const Call& c) { return std::to_string(widest_quad_tile(kernels_named(c.string("isa")), c.small("mb"))); }},
      {"multiplies_matrices", [](const Call& c) { return std::to_string(multiplies_matrices(kernels_named(c.string("isa")))); }},
      {"dense_fits", [](const Call& c) { return std::to_string(dense_fits(kernels_named(c.string("isa")), c.small("width"), c.small("rows"), c.small("columns"))); }},
      {"activate", activated},
      {"fma_peak", [](const Call& c) { return std::to_string(fma_peak(kernels_named(c.string("isa")))); }},
      {"program", [this](const Call& c) { return make_program(c); }},
      {"forget", [this](const Call& c) { return std::to_string(programs_.erase(c.integer("program"))); }},
      {"add", [this](const Call& c) {
         const Json fields = Json::parse(c.string("fields"));
         return std::to_string(program(c).add(c.string("op"), Fields(fields, c.arrays), c.small("at")));
       }},
      {"run", [this](const Call& c) { return run(c); }},
      {"time_step", [this](const Call& c) { return bytes_of(program(c).time_step(c.small("step"), c.small("repeats"), checked_buffers(c))); }},
      {"profile", [this](const Call& c) { return profile(c); }},
      {"kernel_name", [this](const Call& c) { return program(c).kernel_name(c.small("step")); }},
      {"levels", [this](const Call& c) { return std::to_string(program(c).levels()); }},
      {"isa", [this](const Call& c) { return std::string(program(c).kernels().name); }},
      {"arena", [this](const Call& c) { return bytes_of(program(c).arena()); }},
      {"put_arena", [this](const Call& c) { return put_arena(c); }},
  };
};

int serve() {
  Server server;
  std::vector<char> text, data;
  for (uint64_t head[2]; read_bytes(head, sizeof head);) {
    text.resize(head[0]);
    data.resize(head[1]);
    if (!read_bytes(text.data(), text.size()) || !read_bytes(data.data(), data.size())) return 1;
    uint64_t kind = 0;
    std::string said;
    try {
      said = server.respond(Call({text.data(), text.size()}, data.data(), data.size()));
    } catch (const std::invalid_argument& error) {
      kind = 1, said = error.what();
    } catch (const std::bad_alloc&) {
      kind = 2, said = "out of memory";
    } catch (const std::out_of_range& error) {
      kind = 3, said = error.what();
    } catch (const std::runtime_error& error) {
      kind = 4, said = error.what();
    }
    answer(kind, said.data(), said.size());
  }
  return 0;
}

}  // namespace
}  // namespace openwork

int main() { return openwork::serve(); }
