"""A compiled program as data. Free of torch.

A step is an operator with JSON fields and arrays. Plane positions are stored as runs `[first, stride, count]`, because
they are nearly always equally spaced; the native library expands them into the tables that kernels want.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]
Runs = list[list[int]]

DTYPES = ("float32", "int64", "int32", "int16", "int8", "uint8", "bool")
"""What a buffer outside the arena may hold, by the names that NumPy and PyTorch share."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of a model input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    """One of `DTYPES`."""


@dataclass(frozen=True)
class Step:
    """One native operation: its family, the layer it stands for, fields and arrays."""

    op: str
    name: str
    fields: Mapping[str, Any]
    arrays: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class TorchCall:
    """One operator left to PyTorch; arguments as capture wrote them."""

    name: str
    target: str
    args: Any
    kwargs: Any
    reads: Mapping[str, int]
    """Values that come from the engine: name to external buffer."""
    writes: int = -1
    """External buffer that takes the result, or -1."""


@dataclass(frozen=True)
class Segment:
    """Native steps [begin, end), or operators that PyTorch runs."""

    begin: int = 0
    end: int = 0
    calls: tuple[TorchCall, ...] = ()


@dataclass(frozen=True)
class Lengths:
    """Inputs that may be shorter along axis 1 than compiled, and outputs that then are."""

    longest: int
    """The compiled length."""
    inputs: tuple[int, ...]
    """Places among the program's inputs; zeros are appended to them."""
    outputs: tuple[int, ...]
    """Places among the program's outputs; they are cut."""


@dataclass(frozen=True)
class ProgramSpec:
    """Everything that running needs."""

    arena: int
    """Floats."""
    externals: tuple[TensorSpec, ...]
    """Buffers outside the arena."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    steps: tuple[Step, ...]
    segments: tuple[Segment, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)
    """Arrays that PyTorch operators need."""
    lengths: Lengths | None = None
    """Set if shorter sequences may come."""
    turns: int = 1
    """How often a run makes the steps, each time on the next equal share of every external buffer."""


def runs(offsets: Sequence[int]) -> Runs:
    """Equally spaced stretches of a list, as [first, stride, count]."""
    found: Runs = []
    for offset in offsets:
        if found and (found[-1][2] == 1 or offset == found[-1][0] + found[-1][1] * found[-1][2]):
            first, stride, count = found[-1]
            found[-1] = [first, offset - first if count == 1 else stride, count + 1]
        else:
            found.append([int(offset), 0, 1])
    return found


def torch_calls(spec: ProgramSpec) -> list[TorchCall]:
    """All operators that PyTorch runs."""
    return list(itertools.chain.from_iterable(s.calls for s in spec.segments))
