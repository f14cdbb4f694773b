// Prints the SHA-256 of the first SIZE bytes of a file, with the CPU's instructions and without: hash FILE SIZE...

#include <cstdio>
#include <cstdlib>

#include "content.hpp"
#include "sha256.hpp"

int main(int count, char** arguments) {
  const openwork::Content content = openwork::map_file(arguments[1]);
  for (int i = 2; i < count; i++)
    for (const bool instructions : {true, false}) {
      openwork::sha256_use_instructions(instructions);
      for (const uint8_t byte : openwork::sha256(content.bytes.first(std::strtoul(arguments[i], nullptr, 10)))) std::printf("%02x", byte);
      std::puts("");
    }
}
