#include "content.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace openwork {
namespace {

[[noreturn]] void unreadable(const std::string& path, const char* reason) {
  throw ArtifactError("cannot read " + path + ": " + reason);
}

struct File {
  explicit File(const std::string& path) : descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (descriptor < 0) unreadable(path, std::strerror(errno));
  }
  ~File() { close(descriptor); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const int descriptor;
};

}  // namespace

Content map_file(const std::string& path) {
  const File file(path);
  struct stat status;
  if (fstat(file.descriptor, &status)) unreadable(path, std::strerror(errno));
  if (S_ISDIR(status.st_mode)) unreadable(path, std::strerror(EISDIR));
  if (!S_ISREG(status.st_mode)) unreadable(path, "it is not a regular file");
  const size_t size = static_cast<size_t>(status.st_size);
  if (!size) return {path, {}, nullptr};
  void* const mapped = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor, 0);
  if (mapped == MAP_FAILED) unreadable(path, std::strerror(errno));
  std::shared_ptr<const void> owner(mapped, [size](const void* p) { munmap(const_cast<void*>(p), size); });
  madvise(mapped, size, MADV_WILLNEED);  // a hint: all of it is about to be digested
  return {path, {static_cast<const uint8_t*>(mapped), size}, std::move(owner)};
}

}  // namespace openwork
