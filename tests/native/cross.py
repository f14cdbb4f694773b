"""Builds the native library for another CPU, and says how to run it here."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QEMU = "qemu-aarch64"
SYSROOT = Path(os.environ.get("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu"))
"""Where the emulated program finds its C library."""


def build(cpu: str, goal: str) -> Path:
    """The folder in which `goal` has been built for Linux on `cpu` with the clang of ziglang; warnings are errors.
    Skips the calling test where ziglang is missing."""
    found = importlib.util.find_spec("ziglang")
    if found is None:
        pytest.skip("compiling for another CPU needs ziglang: pip install ziglang")
    (folder,) = found.submodule_search_locations
    into = ROOT / "build" / f"clang-{cpu}"
    configure = ["cmake", "-S", "native", "-B", into, "-G", "Ninja", "--toolchain", "cmake/zig.cmake"]
    options = [
        f"-DOPENWORK_TARGET={cpu}-linux-gnu",
        f"-DOPENWORK_ZIG={folder}/zig",
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
    ]
    for command in ([*configure, *options], ["cmake", "--build", into, "--target", goal]):
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"
    return into


def emulated(program: Path, cpu: str = "max") -> list[str]:
    """The command that runs a program for aarch64 here. Skips the calling test where that cannot be done."""
    if shutil.which(QEMU) is None or not SYSROOT.is_dir():
        pytest.skip(f"needs {QEMU} and {SYSROOT}: apt install qemu-user libc6-arm64-cross")
    return [QEMU, "-cpu", cpu, "-L", str(SYSROOT), str(program)]


def environment() -> dict[str, str]:
    """With CMake and Ninja found where Python's own programs lie."""
    return {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
