"""Weights to tap lists. A block of rows walks the union of its rows' non-zeros; dense is the union of everything."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
