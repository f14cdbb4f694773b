# Compiles with the clang of PyPI's `ziglang`, which brings headers and C library of every target along:
#
#   cmake -S native -B build/aarch64 -G Ninja --toolchain cmake/zig.cmake -DOPENWORK_TARGET=aarch64-linux-gnu
#
# The `python3` of PATH has to know ziglang; or name the zig program with -DOPENWORK_ZIG=/path/to/zig.
set(OPENWORK_TARGET aarch64-linux-gnu CACHE STRING "CPU, system and C library to compile for")
if(NOT OPENWORK_ZIG)
  execute_process(COMMAND python3 -c "import ziglang; print(ziglang.__path__[0])"
    OUTPUT_VARIABLE folder OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  set(OPENWORK_ZIG ${folder}/zig CACHE FILEPATH "zig program")
endif()
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES OPENWORK_TARGET OPENWORK_ZIG)
set(CMAKE_SYSTEM_NAME Linux)
string(REGEX MATCH "^[^-]+" CMAKE_SYSTEM_PROCESSOR ${OPENWORK_TARGET})
# Without a target zig would compile for the CPU it runs on; without a level of optimisation (the build's own comes later and
# wins) it would link its sanitizer, which costs CMake's first look at the compiler a quarter of a minute.
set(compile_for -target ${OPENWORK_TARGET} -O2)
set(CMAKE_C_COMPILER ${OPENWORK_ZIG} cc ${compile_for})
set(CMAKE_CXX_COMPILER ${OPENWORK_ZIG} c++ ${compile_for})
