"""Builds the native library with the clang of ziglang, also for another CPU, and says how to run that here."""

import importlib.util
import os
import shutil
from pathlib import Path

import pytest
from builds import build as build_form

QEMU = "qemu-aarch64"
SYSROOT = Path(os.environ.get("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu"))
"""Where the emulated program finds its C library."""


def zig() -> str:
    """The zig program. Skips the calling test where ziglang is missing."""
    found = importlib.util.find_spec("ziglang")
    if found is None:
        pytest.skip("compiling for another CPU needs ziglang: pip install ziglang")
    (folder,) = found.submodule_search_locations
    return f"{folder}/zig"


def build(cpu: str, *goals: str) -> Path:
    """The folder in which `goals` have been built for Linux on `cpu`; warnings are errors."""
    options = ["--toolchain", "cmake/zig.cmake", f"-DOPENWORK_TARGET={cpu}-linux-gnu", f"-DOPENWORK_ZIG={zig()}"]
    return build_form(f"clang-{cpu}", *goals, options=options)


def emulated(program: Path, cpu: str = "max") -> list[str]:
    """The command that runs a program for aarch64 here. Skips the calling test where that cannot be done."""
    if shutil.which(QEMU) is None or not SYSROOT.is_dir():
        pytest.skip(f"needs {QEMU} and {SYSROOT}: apt install qemu-user libc6-arm64-cross")
    return [QEMU, "-cpu", cpu, "-L", str(SYSROOT), str(program)]
