"""The clock of a single step of a compiled network."""

import time
from typing import Any

import numpy as np

from openwork.formats.program import ProgramSpec

CALLS = 20
"""Runs of the step in a call: one alone takes microseconds or less."""


class StepClock:
    """A step alone, again and again, as a side of `openwork.engine.timing.measure`: its weights lie in the nearest
    cache that holds them."""

    def __init__(self, program: Any, spec: ProgramSpec, at: int) -> None:
        """Of the native `program` of `spec`, step `at`."""
        self.program, self.at = program, at
        self.buffers = [np.zeros(e.shape, np.float32) for e in spec.externals]

    def block(self, calls: int) -> float:
        """Median seconds of a run of the step."""
        begin = time.perf_counter()
        found = []
        while len(found) < calls or time.perf_counter() - begin < 0.02:
            found.append(np.median(self.program.time_step(self.at, CALLS, self.buffers)))
        return float(np.median(found))

    def __call__(self) -> None:
        raise AssertionError("times itself")
