"""Block-circulant matrices: found from their numbers alone, and packed as the first column of every block."""

import numpy as np
from numpy.typing import NDArray

from ..errors import ShapeError
from ..formats.packed import base
from ..formats.program import Array

F32 = NDArray[np.float32]

BLOCKS = (128, 64, 32, 16, 8, 4)
"""Sides of blocks that the engine has a kernel for."""


def block_of(matrix: F32) -> int:
    """The largest side in BLOCKS for which every block of `matrix` [out, in] is circulant; 0 if there is none."""
    for block in BLOCKS:
        corner = matrix[:block, :block]
        # most matrices are told by two numbers of their first block
        if min(matrix.shape) >= block and corner[0, 0] == corner[1, 1] and _first_columns(matrix, block) is not None:
            return block
    return 0


def pack(matrix: F32, bias: F32, block: int) -> dict[str, Array]:
    """The arrays of a native circulant step."""
    first = _first_columns(matrix, block)
    assert first is not None, block
    return {"value": first.reshape(-1), "bias": bias}


def _first_columns(matrix: F32, block: int) -> F32 | None:
    """The first column of every block, [block rows, block columns, block]; None if a block is not circulant."""
    try:
        first: F32 = base.pack("circulant", matrix, block=block).arrays["first"]
    except ShapeError:
        return None
    found: F32 = first[0]
    return found


def multiply_adds(shape: tuple[int, ...], block: int) -> int:
    """Multiply-adds of one sample's products of frequencies: all but two are complex."""
    out, inputs = (-(-size // block) for size in shape)
    return out * inputs * (2 * block - 2)
