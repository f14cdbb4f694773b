"""Fit a program to the machine and the threads that it runs on, without the model that it was compiled from.

How weights are packed is fixed in the file. What is left to choose are the tile of each kernel and how its work is cut
for the threads; both only say in which order the same sums are taken apart.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..formats.program import Array, ProgramSpec, Step
from . import _native
from .native import add_step

CLEARLY = 0.98
"""A candidate replaces what the file says if it takes less than this share of its time."""


@dataclass(frozen=True)
class Retuned:
    """A step with its new fields, and what was timed."""

    step: Step
    tried: tuple[dict[str, Any], ...]


def retune(spec: ProgramSpec, program: Any) -> dict[int, Retuned]:
    """Time candidates of every step that has any, in the native program; it keeps the fastest."""
    buffers = [np.zeros(e.shape, np.float32) for e in spec.externals]
    found = {}
    for at, step in enumerate(spec.steps):
        if step.op in _TILES and all(name in step.fields for name in (_TILES[step.op], "row_chunks")):
            found[at] = _Search(program, at, step, buffers).run()
    return found


def tile_widths(isa: str, op: str, rows: int) -> list[int]:
    """Vectors of positions that register blocks of a kernel with taps may span, likely best first."""
    if op == "quad_taps" and rows == _native.TILE and _native.multiplies_matrices(isa):
        return [4, 2, _native.widest_quad_tile(isa, rows), 1]  # few where few blocks share what is copied
    widest = (_native.widest_quad_tile if op == "quad_taps" else _native.widest_tile)(isa, rows)
    widths = dict.fromkeys((widest, widest - 1, widest - 2, (widest + 1) // 2, 1 + widest // 3))
    return [width for width in widths if width >= 1]


_TILES = {"taps": "vectors", "quad_taps": "vectors", "dense": "tile", "winograd": "block"}
_TILES |= dict.fromkeys(("rows", "balanced", "circulant", "quad_rows"), "samples")
"""The field that says how large a kernel's tile is."""


class _Search:
    """Greedy: first the tile, then the split among threads."""

    def __init__(self, program: Any, at: int, step: Step, buffers: list[Array]) -> None:
        self.program, self.at, self.first, self.buffers = program, at, step, buffers
        self.seconds: list[tuple[float, str, Step]] = []

    def run(self) -> Retuned:
        before = self._time(self.first)
        for fields in self._tiles():
            self._time(self._with(self.first, fields))
        for fields in self._splits():
            self._time(self._with(self._best, fields))
        best = min(self.seconds, key=lambda s: s[0])
        step = best[2] if best[0] < CLEARLY * min(before, self._time(self.first)) else self.first
        add_step(self.program, step, self.at)
        return Retuned(step, self._tried())

    @property
    def _best(self) -> Step:
        return min(self.seconds, key=lambda s: s[0])[2]

    @staticmethod
    def _with(step: Step, fields: dict[str, int]) -> Step:
        return replace(step, fields={**step.fields, **fields})

    def _time(self, step: Step) -> float:
        """The best of enough runs to fill about two milliseconds."""
        add_step(self.program, step, self.at)
        warm = min(self.program.time_step(self.at, 3, self.buffers))
        repeats = int(min(max(2e-3 / max(warm, 1e-7), 4), 60))
        seconds = min(self.program.time_step(self.at, repeats, self.buffers))
        self.seconds.append((seconds, self.program.kernel_name(self.at), step))
        return float(seconds)

    def _tiles(self) -> Iterator[dict[str, int]]:
        name, now = _TILES[self.first.op], self.first.fields[_TILES[self.first.op]]
        if self.first.op == "dense":
            return  # its tile follows from the map's size and the registers
        if _TILES[self.first.op] == "samples":
            sizes = set(range(1, min(self.first.fields["batch"], _native.MAX_SAMPLES) + 1))
        elif self.first.op == "winograd":
            sizes = {14, 28, 56, 112}
        else:
            sizes = set(tile_widths(self.program.isa, self.first.op, self.first.fields["mb"]))
        yield from ({name: size} for size in sorted(sizes - {now}))

    def _splits(self) -> Iterator[dict[str, int]]:
        threads = self.program.threads
        for rows in sorted({1, 2 * threads, 4 * threads, 16}):
            yield {"row_chunks": rows}
        if "tile_chunks" in self.first.fields:
            for rows, tiles in ((1, threads), (1, 4 * threads), (threads, threads), (16, threads), (1, 1)):
                yield {"row_chunks": rows, "tile_chunks": tiles}

    def _tried(self) -> tuple[dict[str, Any], ...]:
        fields = (_TILES[self.first.op], "row_chunks", "tile_chunks")
        return tuple(
            {"kernel": kernel, "microseconds": round(1e6 * seconds, 2)}
            | {name: step.fields[name] for name in fields if name in step.fields}
            for seconds, kernel, step in sorted(self.seconds, key=lambda s: s[0])[:12]
        )
