// The bytes of an artifact: a mapped file, or memory of the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>

namespace openwork {

// What is wrong with a file, in one sentence that begins with its name.
struct ArtifactError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Content {
  std::string name;  // how messages call it
  std::span<const uint8_t> bytes;
  std::shared_ptr<const void> owner;  // keeps the bytes where they are
};

// Maps a file, so that processes share its pages and only what is used is read. The file may be replaced by renaming
// another over it; writing into it or cutting it off while it is mapped is not allowed.
// Throws ArtifactError if it cannot be read.
Content map_file(const std::string& path);

}  // namespace openwork
