"""How a program becomes a native one: expand what the file shortens, then hand every step to the native library.

The native library checks sizes, offsets and indices of each step; here, whatever it or NumPy refuses becomes an
`ArtifactError` that names the step.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ArtifactError, EngineError
from ..formats.program import ProgramSpec, Runs, Step, expand
from . import _native


def tap_table(planes: list[Runs], shifts: list[list[int]]) -> NDArray[np.int32]:
    """Offset of every (channel, kernel position): plane of the position's phase plus its shift, channel-major."""
    phases = [expand(p).astype(np.int64) for p in planes]
    columns = [phases[phase] + shift for phase, shift in shifts]
    table = np.stack(columns, axis=1).reshape(-1)
    if table.size and (table.min() < -(2**31) or table.max() >= 2**31):
        raise ValueError("a tap reads outside the arena")
    return table.astype(np.int32)


def inside_bits(arena: int, batch: int, stride: int, pitch: int, h: int, w: int) -> NDArray[np.uint16]:
    """Bit i of entry u: position 16 u + i is a pixel of a batch of h x w images, which fit into `arena` floats."""
    count = (batch - 1) * stride + (h - 1) * pitch + w
    if min(batch, stride, pitch, h, w) < 1 or w > pitch or count > arena:
        raise ValueError("a grid's sizes are out of range")
    flags = np.zeros(-(-count // _native.UNIT) * _native.UNIT, np.uint8)
    for n in range(batch):
        image = flags[n * stride : n * stride + (h - 1) * pitch + w]
        for y in range(h):
            image[y * pitch : y * pitch + w] = 1
    return np.packbits(flags, bitorder="little").view(np.uint16)


def bound(value: float | None, default: float) -> float:
    """A clamp's bound; None stands for no bound, which JSON cannot write."""
    return default if value is None else float(value)


def _index(step: Step, rows: int, outputs: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Row pointers and columns of blocks of `rows` outputs; dense layers store neither."""
    if step.fields["dense"]:
        blocks, columns = outputs // rows, int(step.fields["columns"])
        group_of = step.fields.get("block_group") or [0] * blocks
        if len(group_of) != blocks or columns < 0 or blocks * rows * columns != len(step.arrays["value"]):
            raise ValueError("a dense step's blocks are out of range")
        index = np.add.outer(np.asarray(group_of, np.int64) * columns, np.arange(columns)).astype(np.int32)
        return np.arange(blocks + 1, dtype=np.int32) * np.int32(columns), index.reshape(-1)
    return step.arrays["start"].astype(np.int32), step.arrays["index"].astype(np.int32)


def _add_taps(program: Any, step: Step, at: int) -> None:
    f, a = step.fields, step.arrays
    out = expand(f["out"])
    start, index = _index(step, int(f["mb"]), len(out))
    program.taps(
        f["mb"], f["vectors"], f["row_chunks"], f["tile_chunks"], start, index, tap_table(f["planes"], f["shifts"]),
        a["value"], a["bias"], out, expand(f["residual"]), inside_bits(len(program.arena()), *f["grid"]),
        bound(f["lo"], -math.inf), bound(f["hi"], math.inf), at,
    )  # fmt: skip


def _add_rows(program: Any, step: Step, at: int) -> None:
    f, a = step.fields, step.arrays
    start, index = _index(step, int(f["width"]), len(a["bias"]))
    program.rows(
        f["width"], f["row_chunks"], f["samples"], f["batch"], f["x"], f["x_stride"], f["y"], f["y_stride"],
        start, index, a["value"], a["bias"], bound(f["lo"], -math.inf), bound(f["hi"], math.inf), at,
    )  # fmt: skip


def _image(f: Mapping[str, Any], which: str) -> tuple[int, int, int, NDArray[np.int32]]:
    image = f[which]
    return image["buffer"], image["pitch"], image["stride"], expand(image["planes"])


def _add_pool(program: Any, step: Step, at: int) -> None:
    f, a = step.fields, step.arrays
    program.pool(
        f["max"], *_image(f, "x"), *_image(f, "y"), f["batch"], f["size"], f["kernel"], f["stride"], f["padding"],
        f["dilation"], a["scale_y"], a["scale_x"], at,
    )  # fmt: skip


def _add_copy(program: Any, step: Step, at: int) -> None:
    f = step.fields
    program.copy(*_image(f, "x"), *_image(f, "y"), f["batch"], *f["step"], expand(f["rows"]), expand(f["columns"]), at)


def _add_mean(program: Any, step: Step, at: int) -> None:
    f = step.fields
    program.mean(*_image(f, "x"), f["batch"], f["y"], f["y_stride"], f["h"], f["w"], f["scale"], at)


_ADD: dict[str, Callable[[Any, Step, int], None]] = {
    "taps": _add_taps,
    "rows": _add_rows,
    "pool": _add_pool,
    "copy": _add_copy,
    "mean": _add_mean,
}


def add_step(program: Any, step: Step, at: int = -1) -> None:
    """Append a step to a native program, or replace step `at`; `ArtifactError` says what is wrong with it."""
    try:
        _ADD[step.op](program, step, at)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"step {step.name!r} ({step.op}) is damaged: {reason[0]}") from error


def checked_isa(isa: str) -> str:
    """`isa`; `EngineError` unless this machine runs it."""
    if isa not in ("auto", *_native.isas()):
        raise EngineError(f"isa={isa!r} does not run on this machine; available: auto, {', '.join(_native.isas())}")
    return isa


def build(spec: ProgramSpec, threads: int, isa: str = "auto") -> Any:
    """The native program of `spec`."""
    sizes = [math.prod(e.shape) for e in spec.externals]
    try:
        program = _native.Program(spec.arena, sizes, threads, checked_isa(isa))
    except (TypeError, ValueError, MemoryError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"the program's sizes are damaged: {reason[0]}") from error
    for step in spec.steps:
        add_step(program, step)
    return program
