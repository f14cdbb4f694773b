"""Block-circulant weights: the first column of every block."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ShapeError
from .base import F32, Packed


@dataclass(frozen=True)
class Circulant(Packed):
    """4 bytes for each block and diagonal: 4 / block a weight, where `block` divides outputs and inputs.

    W[i, j] of a kernel position is first[position, i // block, j // block, (i - j) mod block]. Blocks at the edge are
    corners of whole ones; diagonals that miss a corner are stored as zeros.
    """

    block: int
    """Side of a block."""
    first: F32
    """[kernel positions, block rows, block columns, block]."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        block = int(settings["block"])
        by_position = weight.reshape(*weight.shape[:2], -1).transpose(2, 0, 1)
        positions, out, inputs = by_position.shape
        first = np.zeros((positions, -(-out // block), -(-inputs // block), block), np.float32)
        row, column, diagonal = _places(out, inputs, block)
        first[:, row, column, diagonal] = by_position + 0.0  # -0.0 is zero
        packed = cls(weight.shape, block, first)
        if not np.array_equal(packed.unpack(), weight):
            raise ShapeError(f"circulant: a block of {block} x {block} is not circulant; project the weight first")
        return packed

    def unpack(self) -> F32:
        out, inputs = self.shape[:2]
        row, column, diagonal = _places(out, inputs, self.block)
        by_position = self.first[:, row, column, diagonal]
        return np.ascontiguousarray(by_position.transpose(1, 2, 0)).reshape(self.shape)

    def check(self) -> None:
        self._require(isinstance(self.block, int) and self.block >= 1, f"a block of {self.block}")
        out, inputs = self.shape[:2]
        positions = self.columns // inputs
        self._require_array("first", np.float32, positions, -(-out // self.block), -(-inputs // self.block), self.block)


def _places(out: int, inputs: int, block: int) -> tuple[NDArray[np.intp], ...]:
    """Block row, block column and diagonal of every weight of a matrix [out, inputs]."""
    row, column = np.arange(out)[:, None], np.arange(inputs)[None]
    return row // block, column // block, (row - column) % block
