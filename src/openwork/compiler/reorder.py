"""Filter reorder: rows that share taps are put side by side before they are joined into blocks.

A taps step stores each row in a plane that it names, so its rows may come in any order. A block walks the union of its
rows' taps and loads the input of each once; rows with the same patterns on the same channels make that union small.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..formats.program import Step
from .drafts import Level, Weights
from .pack import union_taps

COMPARED = 1024
"""Rows that are compared with each other, at most: the time grows with it."""

SPARSE = 0.5
"""Layers with a larger share of non-zeros are left as they are."""

WORTHWHILE = 0.98
"""An order is used if it leaves fewer than this share of the taps."""


@dataclass(frozen=True)
class Order:
    """Rows of a layer as they are packed."""

    rows: NDArray[np.intp]
    """The row of the weights at each place."""
    taps: int
    """Of all blocks."""


def order(w: Weights, rows: int) -> Order | None:
    """The order in which blocks of `rows` have few taps; None if the rows may as well stay as they are."""
    if rows not in w.orders:
        w.orders[rows] = _worthwhile(w, rows)
    return w.orders[rows]


def reordered(base: Step, w: Weights, rows: int) -> tuple[Step, Weights]:
    """A taps step that is not packed yet, and its weights, in the order for blocks of `rows`."""
    found = order(w, rows)
    assert found is not None
    at = found.rows
    places = {name: [base.fields[name][i] for i in at] for name in ("out", "residual") if base.fields[name]}
    slopes = {name: array[at] for name, array in base.arrays.items() if name == "slope"}
    step = replace(base, fields={**base.fields, **places}, arrays={**base.arrays, **slopes})
    levels = tuple(Level(level.keep[at], level.bias[at], level.scale[at]) for level in w.levels)
    return step, replace(w, matrix=w.matrix[at], bias=w.bias[at], levels=levels)


def similar(matrix: NDArray[np.float32], rows: int, groups: int = 1) -> NDArray[np.intp]:
    """A permutation of the rows of `matrix` [out, columns], within each of `groups` equal parts, for blocks of `rows`
    consecutive rows with few taps.

    Greedy: the longest row that is left begins a block, and the rows join it that share most taps with the block.
    """
    mask = matrix != 0
    return np.concatenate([_blocks(mask, part, rows) for part in np.split(np.arange(len(mask)), groups)])


def _worthwhile(w: Weights, rows: int) -> Order | None:
    if rows == 1 or np.count_nonzero(w.matrix) > SPARSE * w.matrix.size:
        return None
    found = similar(w.matrix, rows, w.groups)
    taps = union_taps(w.matrix[found], rows)
    return Order(found, taps) if taps < WORTHWHILE * union_taps(w.matrix, rows) else None


def _blocks(mask: NDArray[np.bool_], part: NDArray[np.intp], rows: int) -> NDArray[np.intp]:
    """The rows of `part` block after block, blocks in the order of their first rows; one that is not full is last."""
    step = COMPARED // rows * rows
    lengths, bits = mask.sum(axis=1), np.packbits(mask, axis=1)
    # The longest first; rows that are the same lie together, so that they are compared with each other.
    part = np.array(sorted(part, key=lambda row: (-lengths[row], bits[row].tobytes())))
    blocks = [np.sort(b) for at in range(0, len(part), step) for b in _joined(mask, part[at : at + step], rows)]
    return np.concatenate(sorted(blocks, key=lambda block: (len(block) < rows, block[0])))


def _joined(mask: NDArray[np.bool_], part: NDArray[np.intp], rows: int) -> list[NDArray[np.intp]]:
    """`part`, the longest rows first, cut into blocks of rows that share taps."""
    readers = np.ascontiguousarray(mask[part].T)  # of each column
    left = np.ones(len(part), bool)
    blocks = []
    for _ in range(0, len(part), rows):
        block, shared = [int(left.argmax())], np.zeros(len(part), np.int32)
        union = np.zeros(len(readers), bool)
        while True:
            left[block[-1]] = False
            more = readers[:, block[-1]] & ~union
            if len(block) == rows or not left.any():
                break
            union |= more
            shared += readers[more].sum(axis=0, dtype=np.int32)
            block.append(int(np.where(left, shared, -1).argmax()))
        blocks.append(part[block])
    return blocks
