"""This folder's tests, put to a native library that runs in a process of its own (see `elsewhere.py`)."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from builds import called

HERE = Path(__file__).parent
LOCAL = (
    "test_aarch64.py",
    "test_aarch64_library.py",
    "test_c_library.py",
    "test_cpu.py",
    "test_processes.py",
    "test_sanitizers.py",
)
"""Tests in this folder that are about this machine or this process."""
CRASHES = f"{HERE}/test_validation.py::test_random_arguments_never_crash"
"""Starts a process of its own, so there is `fuzzed` in its place."""
KERNELS = (str(HERE), *(f"--ignore={HERE / name}" for name in LOCAL), "--deselect", CRASHES)
"""What asks every kernel and every check of the library."""


def elsewhere(command: Sequence[str | Path], *arguments: str, **environment: str) -> str:
    """What Python prints when the library of another process, started by `command`, takes the place of the one here."""
    environment |= {
        "OPENWORK_REMOTE": shlex.join(map(str, command)),
        "PYTHONPATH": os.pathsep.join((str(HERE), *sys.path)),
    }
    return called(sys.executable, *arguments, **environment)


def passed(command: Sequence[str | Path], *tests: str, **environment: str) -> int:
    """How many tests passed there; one that fails is a failure."""
    said = elsewhere(command, "-m", "pytest", "-q", "-p", "elsewhere", "-m", "not slow", *tests, **environment)
    return int(re.search(r"(\d+) passed", said)[1])


def fuzzed(command: Sequence[str | Path], count: int) -> tuple[int, int]:
    """How many of `count` random steps were refused there, and how many ran."""
    script = (
        f"import elsewhere, runpy, sys; sys.argv[1:] = ['{count}']; runpy.run_path({str(HERE / 'fuzz_steps.py')!r})"
    )
    refused, ran = map(int, elsewhere(command, "-c", script).split()[-2:])
    return refused, ran
