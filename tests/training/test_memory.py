"""Freed memory stays with the process: the pages of the next step's activations are there already."""

import platform
import resource
import subprocess
import sys

import pytest

STEPS = """
import resource
import torch
from openwork.training.memory import keep_freed_memory
keep_freed_memory()
def step():
    held = [torch.ones(2 << 20) for _ in range(4)]  # 8 MiB each
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

PAGES_OF_A_STEP = 4 * (8 << 20) // resource.getpagesize()


def _faults() -> int:
    made = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    return int(made.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no such choice")
def test_pages_come_from_the_system_once() -> None:
    # A block may still settle where none lay before; without it the pages of one step at least, mostly of all ten, are
    # new.
    assert _faults() <= PAGES_OF_A_STEP // 2
