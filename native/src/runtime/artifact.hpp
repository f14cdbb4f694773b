// Reads an artifact: the counterpart of formats/artifact.py. Whatever a file says is checked before it is used.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "content.hpp"
#include "program.hpp"

namespace openwork {

enum class Element { f32, i64, i32, i16, i8, u8, boolean };  // in the order of openwork_type

size_t element_bytes(Element element);

// A buffer outside the arena.
struct External {
  std::string name;
  Element element;
  std::vector<int64_t> shape;
  int64_t size;  // elements

  size_t bytes() const { return static_cast<size_t>(size) * element_bytes(element); }
};

struct Artifact {
  std::vector<External> externals;
  std::vector<int> inputs, outputs;           // places in `externals`
  std::vector<std::pair<int, int>> segments;  // steps [begin, end) that run one after the other
  std::unique_ptr<Program> program;
};

// isa: a name from available_kernels(), or "auto" for the best.
// Throws ArtifactError for what is no artifact, damaged, of another version, or needs PyTorch.
Artifact read_artifact(const Content& content, int threads, const std::string& isa = "auto");

}  // namespace openwork
