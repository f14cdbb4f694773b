"""One step as arguments of the native constructors, what these are made of, and one way to run it."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openwork.engine import _native

FLOATS = tuple(isa for isa in _native.isas() if isa not in ("avx512amx", "avx512vnni", "avx2vnni", "neondot"))
"""Instruction sets that differ in their kernels on floats; the others differ in those on quads alone."""

FAST = tuple(isa for isa in FLOATS if isa != "reference")
"""Instruction sets whose kernels on floats are compared with the naive reference."""

UNIT = _native.UNIT

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
"""Outputs in a panel of `rows`."""


@dataclass
class Case:
    """One step, the arena and the buffers outside it that it works on. Arguments named in
    `ARRAYS` are the step's arrays, the others its fields."""

    family: str
    arguments: dict[str, Any]
    arena: np.ndarray
    buffers: list[np.ndarray] = field(default_factory=list)

    def add(self, program: Any, at: int = -1, **changes: Any) -> int:
        """Make the step a part of a native program, with some arguments replaced; `...` leaves one out."""
        fields, arrays = {}, {}
        for name, value in {**self.arguments, **changes}.items():
            if value is ...:
                continue
            if name in ARRAYS or (name == "scale" and isinstance(value, np.ndarray)):
                arrays[name] = value
            else:
                fields[name] = _field(name, value)
        return program.add(self.family, json.dumps(fields), arrays, at)

    def run(self, isa: str, threads: int = 1, arena: np.ndarray | None = None, level: int = 0) -> np.ndarray:
        """The arena after the step, followed by the buffers."""
        program = _native.Program(len(self.arena), [b.size for b in self.buffers], threads, isa)
        self.add(program)
        buffers = [b.copy() for b in self.buffers]
        program.arena()[:] = self.arena if arena is None else arena
        program.run(0, len(program), buffers, level)
        return np.concatenate([program.arena().copy(), *(b.reshape(-1) for b in buffers)])

    def changed(self, **arguments: Any) -> "Case":
        """The same with some arguments replaced."""
        return Case(self.family, {**self.arguments, **arguments}, self.arena, self.buffers)


ARRAYS = {"start", "begin", "index", "value", "bias", "scale_y", "scale_x", "weight", "table", "added", "slope"}
ARRAYS |= {"level_end", "level_bias", "level_scale"}
ARRAYS |= {"panels", "place", "rest", "h_start", "c_start", "row", "row_share", "column", "column_share"}
POSITIONS = {
    "out",
    "residual",
    "rows",
    "columns",
    "planes",
    "from",
    "q",
    "k",
    "v",
    "x",
    "y",
    "quads",
    "a",
    "b",
    "first",
    "length",
}
"""Fields that hold positions; cases keep them as arrays."""


def _field(name: str, value: Any) -> Any:
    """A field as JSON: positions as stretches of one, no bound as null."""
    if isinstance(value, dict):
        return {key: _field(key, inner) for key, inner in value.items()}
    if name in POSITIONS and isinstance(value, np.ndarray):
        return stretches(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, float) and math.isinf(value):
        return None
    return value


def stretches(positions: np.ndarray) -> list[list[int]]:
    """Positions as an artifact's stretches [first, stride, count], one each."""
    return [[position, 0, 1] for position in positions.tolist()]


def i32(*values: Any) -> np.ndarray:
    """Numbers and lists of them as one list of positions."""
    return np.concatenate([np.zeros(0), *map(np.atleast_1d, values)]).astype(np.int32)


def f32(shape: Any, rng: np.random.Generator) -> np.ndarray:
    """Random floats."""
    return rng.standard_normal(shape).astype(np.float32)


def inside(grid: tuple[int, ...]) -> np.ndarray:
    """Which positions of a grid, up to a whole unit, are pixels."""
    batch, stride, pitch, h, w = grid
    count = (batch - 1) * stride + (h - 1) * pitch + w
    flags = np.zeros(-(-count // UNIT) * UNIT, bool)
    for n in range(batch):
        for y in range(h):
            flags[n * stride + y * pitch :][:w] = True
    return flags
