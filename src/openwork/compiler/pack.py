"""Weights to tap lists, and layers to steps.

A block of rows walks the union of its rows' non-zeros; dense is the union of everything.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..formats.program import Array, Step, runs
from . import balanced, circulant, recurrent, winograd
from .drafts import TILE
from .layout import QUAD

if TYPE_CHECKING:
    from .candidates import Choice
    from .drafts import Level, Weights

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Packed:
    """Taps of blocks of `rows` output rows that share them."""

    rows: int
    start: NDArray[np.int32]
    """Row pointers, [blocks + 1]."""
    index: NDArray[np.int32]
    """Columns of the weight matrix (channel * kernel position), [taps]."""
    value: Array
    """[taps * rows]: a block's values of a tap lie together, unless tiled; words of four bytes for integers."""
    bias: F32
    """[blocks * rows], zero where the last block is padded."""
    ends: NDArray[np.int32]
    """Where the taps of each block end at the levels after the first, [levels - 1, blocks]."""

    @property
    def taps(self) -> int:
        """Taps of all blocks."""
        return len(self.index)

    def tiled(self) -> "Packed":
        """The same in tiles of 16 rows x 16 taps: each block's list filled up to whole tiles with its last tap again,
        under weights of zero, and a tile's weights row by row."""
        counts = np.diff(self.start)
        start = np.zeros_like(self.start)
        np.cumsum(-(-counts // TILE) * TILE, out=start[1:])
        block = np.repeat(np.arange(len(counts)), np.diff(start))
        place = np.arange(start[-1]) - start[block]
        taken = (self.start[block] + np.minimum(place, counts[block] - 1)).astype(np.intp)
        value = self.value.reshape(-1, self.rows)[taken] * (place < counts[block])[:, None].astype(self.value.dtype)
        value = value.reshape(-1, TILE, self.rows).swapaxes(1, 2)
        return replace(self, start=start, index=self.index[taken], value=np.ascontiguousarray(value).reshape(-1))


def pack(
    matrix: Array, bias: F32, rows: int, groups: int = 1, dense: bool = False, levels: Sequence["Level"] = ()
) -> Packed:
    """Pack `matrix` [out, in/groups * kernel] into blocks of `rows` consecutive rows.

    With groups, `rows` must divide the rows of a group, so that a block reads one group's channels only. Padding rows
    are zero. `dense` keeps zeros as taps, and all taps at every level. Else, with nested levels, a block's taps begin
    with those of the sparsest one; a tap whose rows join at different levels comes once for each.
    """
    out, columns = matrix.shape
    assert groups == 1 or (out // groups) % rows == 0
    blocks = -(-out // rows)
    places, values = [], []
    parts = [matrix] if dense else _parts(matrix, levels)
    counts = np.zeros((len(parts), blocks), np.int32)
    for at, part in enumerate(parts):
        stacked = _filled(part, blocks * rows).reshape(blocks, rows, columns)
        keep = np.ones((blocks, columns), bool) if dense else (stacked != 0).any(axis=1)
        block, column = np.nonzero(keep)
        counts[at] = keep.sum(axis=1)
        places.append(np.stack([block, np.full_like(block, at), column]))
        values.append(stacked[block, :, column])
    block, part, column = np.concatenate(places, axis=1)
    order = np.lexsort((column, part, block)) if len(parts) > 1 else slice(None)
    start = np.zeros(blocks + 1, np.int32)
    np.cumsum(counts.sum(axis=0), out=start[1:])
    group = block * rows // (out // groups) if groups > 1 else np.zeros_like(block)
    ends = (start[:-1] + np.cumsum(counts, axis=0))[:-1][::-1]
    return Packed(
        rows,
        start,
        (column + group * columns)[order].astype(np.int32),
        np.ascontiguousarray(np.concatenate(values)[order]).reshape(-1),
        _filled(bias, blocks * rows),
        ends.astype(np.int32) if len(parts) > 1 else np.tile(start[1:], (len(levels), 1)),
    )


def _parts(matrix: Array, levels: Sequence["Level"]) -> list[Array]:
    """What each level adds to the sparser one after it, the sparsest first: their sum is the matrix."""
    if not levels:
        return [matrix]
    keeps = [matrix != 0, *(level.keep for level in levels), np.zeros(matrix.shape, bool)]
    return [np.where(keep & ~less, matrix, np.float32(0)) for keep, less in itertools.pairwise(keeps)][::-1]


def _filled(array: Array, rows: int, value: float = 0.0) -> Array:
    """The array with rows of `value` appended, up to `rows`."""
    found = np.full((rows, *array.shape[1:]), value, array.dtype)
    found[: len(array)] = array
    return found


def union_taps(matrix: Array, rows: int) -> int:
    """How many taps `pack` would make, without packing."""
    return int(_taps_by_block(matrix, rows).sum())


def tile_taps(matrix: Array, dense: bool) -> int:
    """The same in tiles, those included that fill up lists."""
    counts = np.full(-(-len(matrix) // TILE), matrix.shape[1]) if dense else _taps_by_block(matrix, TILE)
    return int((-(-counts // TILE) * TILE).sum())


def _taps_by_block(matrix: Array, rows: int) -> Array:
    out, columns = matrix.shape
    blocks = -(-out // rows)
    mask = np.zeros((blocks * rows, columns), bool)
    mask[:out] = matrix != 0
    counts: Array = mask.reshape(blocks, rows, columns).any(axis=1).sum(axis=1)
    return counts


def layer_step(base: Step, w: "Weights", choice: "Choice") -> Step:
    """The final step of a layer: `base` with its weights packed, and planes padded to whole blocks."""
    if choice.op == "recurrent":
        cells = recurrent.Cells.of(base.fields)
        more, found = recurrent.pack(w.matrix, w.bias, cells, choice.rows, choice.row_chunks, choice.dense)
        return with_tile(Step("recurrent", base.name, {**base.fields, **more}, {**base.arrays, **found}), choice)
    if choice.op == "winograd":
        found = winograd.pack(w.matrix, w.bias, choice.tile[0], choice.rows)
        return with_tile(Step("winograd", base.name, _winograd_fields(base, choice), {**base.arrays, **found}), choice)
    if choice.op == "circulant":
        sizes = {"block": choice.rows, "features": w.matrix.shape[1]}
        found = circulant.pack(w.matrix, w.bias, choice.rows)
        return with_tile(Step("circulant", base.name, {**base.fields, **sizes}, {**base.arrays, **found}), choice)
    if choice.op == "balanced":
        sizes = {"window": choice.rows, "features": w.matrix.shape[1]}
        found = balanced.pack(w.matrix, w.bias, w.balanced[choice.rows])
        return with_tile(Step("balanced", base.name, {**base.fields, **sizes}, {**base.arrays, **found}), choice)
    packed = pack(w.matrix, w.bias, choice.rows, w.groups, choice.dense, w.levels)
    packed = packed.tiled() if choice.tiled else packed
    fields = dict(base.fields) | {"columns": w.matrix.shape[1], "dense": choice.dense}
    arrays: dict[str, Array] = {**base.arrays, "value": packed.value, "bias": packed.bias}
    if w.whole:
        arrays |= {"value": packed.value.view(np.int8), "scale": _filled(base.arrays["scale"], len(packed.bias))}
    if not choice.dense:
        arrays |= _compressed(packed)
    if w.levels:
        arrays |= _of_levels(packed, w.levels)
    if choice.dense and w.groups > 1:
        per_group = len(w.matrix) // w.groups
        fields["block_group"] = [b * choice.rows // per_group for b in range(len(packed.bias) // choice.rows)]
    kind = {
        "taps": _taps_fields,
        "dense": _dense_fields,
        "rows": _rows_fields,
        "quad_taps": _quad_taps_fields,
        "quad_rows": _rows_fields,
    }[choice.op]
    fields = kind(fields, choice, len(packed.bias) - len(w.matrix))
    return with_tile(Step(choice.op, base.name, fields, arrays), choice)


def with_tile(step: Step, choice: "Choice") -> Step:
    """The same packing with another tile and cut."""
    tile: dict[str, Any] = {"row_chunks": choice.row_chunks, "tile_chunks": choice.tile_chunks}
    if step.op in ("rows", "recurrent", "balanced", "circulant", "quad_rows"):
        tile = {"samples": choice.tile[0], "row_chunks": choice.row_chunks}
    elif step.op == "dense":
        tile["tile"] = list(choice.tile)
    elif step.op == "winograd":
        tile["block"] = choice.tile[1]
    elif step.op == "quad_taps":
        tile["vectors"] = choice.tile[0]
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


def _quad_taps_fields(fields: dict[str, Any], choice: "Choice", spare: int) -> dict[str, Any]:
    """The same where four rows may share a plane of words, of what is written and of what is added."""
    planes = spare // QUAD if fields["quads_out"] else spare
    more = spare if fields["residual_kind"] == "float" else spare // QUAD
    out, residual = [*fields["out"], *[fields.pop("spill")] * planes], fields["residual"]
    zero = fields.pop("zero")
    residual = runs([*residual, *[zero] * more]) if residual else []
    return fields | {"mb": choice.rows, "out": runs(out), "residual": residual}


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


def _of_levels(packed: Packed, levels: Sequence["Level"]) -> dict[str, Array]:
    """Where each level ends in each block, its biases, and its factors if there are any."""
    rows = len(packed.bias)
    found = {"level_end": packed.ends, "level_bias": np.stack([_filled(level.bias, rows) for level in levels])}
    if any((level.scale != 1).any() for level in levels):
        found["level_scale"] = np.stack([_filled(level.scale, rows, 1.0) for level in levels])
    return found


def _compressed(packed: Packed) -> Mapping[str, Array]:
    """Row pointers and columns; 16 bits a column where they fit."""
    small = packed.taps == 0 or int(packed.index.max()) < 1 << 16
    return {"start": packed.start, "index": packed.index.astype(np.uint16 if small else np.int32)}
