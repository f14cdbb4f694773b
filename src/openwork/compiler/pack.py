"""Weights to tap lists, and layers to steps.

A block of rows walks the union of its rows' non-zeros; dense is the union of everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..formats.program import Array, Step, runs
from . import recurrent, winograd

if TYPE_CHECKING:
    from .candidates import Choice
    from .lowering import Weights

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """Taps of blocks of `rows` output rows that share them."""

    rows: int
    start: NDArray[np.int32]
    """Row pointers, [blocks + 1]."""
    index: NDArray[np.int32]
    """Columns of the weight matrix (channel * kernel position), [taps]."""
    value: F32
    """[taps * rows]: the block's values of a tap lie together."""
    bias: F32
    """[blocks * rows], zero where the last block is padded."""

    @property
    def taps(self) -> int:
        """Taps of all blocks."""
        return len(self.index)


def pack(matrix: F32, bias: F32, rows: int, groups: int = 1, dense: bool = False) -> Packed:
    """Pack `matrix` [out, in/groups * kernel] into blocks of `rows` consecutive rows.

    With groups, `rows` must divide the rows of a group, so that a block reads one group's channels only. Padding rows
    are zero. `dense` keeps zeros as taps.
    """
    out, columns = matrix.shape
    assert groups == 1 or (out // groups) % rows == 0
    blocks = -(-out // rows)
    padded = np.zeros((blocks * rows, columns), np.float32)
    padded[:out] = matrix
    padded_bias = np.zeros(blocks * rows, np.float32)
    padded_bias[:out] = bias
    stacked = padded.reshape(blocks, rows, columns)
    keep = np.ones((blocks, columns), bool) if dense else (stacked != 0).any(axis=1)
    block, column = np.nonzero(keep)
    group = block * rows // (out // groups) if groups > 1 else 0
    start = np.zeros(blocks + 1, np.int32)
    np.cumsum(keep.sum(axis=1), out=start[1:])
    value = stacked[block, :, column]
    return Packed(
        rows, start, (column + group * columns).astype(np.int32), np.ascontiguousarray(value).reshape(-1), padded_bias
    )


def union_taps(matrix: F32, rows: int) -> int:
    """How many taps `pack` would make, without packing."""
    out, columns = matrix.shape
    blocks = -(-out // rows)
    mask = np.zeros((blocks * rows, columns), bool)
    mask[:out] = matrix != 0
    return int(mask.reshape(blocks, rows, columns).any(axis=1).sum())


def layer_step(base: Step, w: "Weights", choice: "Choice") -> Step:
    """The final step of a layer: `base` with its weights packed, and planes padded to whole blocks."""
    if choice.op == "recurrent":
        cells = recurrent.Cells.of(base.fields)
        more, found = recurrent.pack(w.matrix, w.bias, cells, choice.rows, choice.row_chunks, choice.dense)
        return with_tile(Step("recurrent", base.name, {**base.fields, **more}, {**base.arrays, **found}), choice)
    if choice.op == "winograd":
        found = winograd.pack(w.matrix, w.bias, choice.tile[0], choice.rows)
        return with_tile(Step("winograd", base.name, _winograd_fields(base, choice), {**base.arrays, **found}), choice)
    packed = pack(w.matrix, w.bias, choice.rows, w.groups, choice.dense)
    fields = dict(base.fields) | {"columns": w.matrix.shape[1], "dense": choice.dense}
    arrays: dict[str, Array] = {**base.arrays, "value": packed.value, "bias": packed.bias}
    if not choice.dense:
        arrays |= _compressed(packed)
    if choice.dense and w.groups > 1:
        per_group = len(w.matrix) // w.groups
        fields["block_group"] = [b * choice.rows // per_group for b in range(len(packed.bias) // choice.rows)]
    kind = {"taps": _taps_fields, "dense": _dense_fields, "rows": _rows_fields}[choice.op]
    fields = kind(fields, choice, len(packed.bias) - len(w.matrix))
    return with_tile(Step(choice.op, base.name, fields, arrays), choice)


def with_tile(step: Step, choice: "Choice") -> Step:
    """The same packing with another tile and cut."""
    tile: dict[str, Any] = {"row_chunks": choice.row_chunks, "tile_chunks": choice.tile_chunks}
    if step.op in ("rows", "recurrent"):
        tile = {"samples": choice.tile[0], "row_chunks": choice.row_chunks}
    elif step.op == "dense":
        tile["tile"] = list(choice.tile)
    elif step.op == "winograd":
        tile["block"] = choice.tile[1]
    else:
        tile |= {"vectors": choice.tile[0], "pieces": choice.pieces}
    return Step(step.op, step.name, {**step.fields, **tile}, step.arrays)


def _taps_fields(fields: dict[str, Any], choice: "Choice", spare: int) -> dict[str, Any]:
    """Rows that fill up the last block read zeros and are stored where nobody reads."""
    spill, zero, residual = fields.pop("spill"), fields.pop("zero"), fields["residual"]
    return fields | {
        "mb": choice.rows,
        "out": runs([*fields["out"], *[spill] * spare]),
        "residual": runs([*residual, *[zero] * spare]) if residual else [],
    }


def _dense_fields(fields: dict[str, Any], choice: "Choice", _spare: int) -> dict[str, Any]:
    """The dense kernel stores only the outputs that there are. Without strides it reads the planes of its own grid."""
    fields = {name: value for name, value in fields.items() if name not in ("spill", "zero")}
    own = {"step": 1, "x_stride": fields["grid"][1], "x_pitch": fields["grid"][2]}
    return own | fields | {"width": choice.rows, "out": runs(fields["out"]), "residual": runs(fields["residual"])}


def _winograd_fields(base: Step, choice: "Choice") -> dict[str, Any]:
    fields = dict(base.fields)
    (_, shift), *_ = fields.pop("shifts")
    del fields["spill"], fields["zero"]
    places = {name: runs(fields[name]) for name in ("out", "residual")}
    return fields | places | {"shift": shift, "tile": choice.tile[0], "width": choice.rows}


def _rows_fields(fields: dict[str, Any], choice: "Choice", _spare: int) -> dict[str, Any]:
    return fields | {"width": choice.rows}


def _compressed(packed: Packed) -> Mapping[str, Array]:
    """Row pointers and columns; 16 bits a column where they fit."""
    small = packed.taps == 0 or int(packed.index.max()) < 1 << 16
    return {"start": packed.start, "index": packed.index.astype(np.uint16 if small else np.int32)}
