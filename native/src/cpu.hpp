// What the CPU at hand can do, asked of the system when the library runs.
#pragma once

#include <string>
#include <vector>

namespace openwork {

// Extensions of the instruction set that kernels of this library use or could use, by Linux's names: "avx2", "avx512_vnni",
// "asimddp" (dot products of NEON) and so on. Only those that the system has switched on.
const std::vector<std::string>& cpu_features();
bool cpu_has(const char* feature);

}  // namespace openwork
