"""Rows and columns that are left: a smaller dense matrix, and where its rows and columns belong."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .base import F32, Packed


@dataclass(frozen=True)
class Kept(Packed):
    """4 bytes for each weight where a kept row meets a kept column, and 2 or 4 for each such row and column.

    Rows are outputs, columns count in the matrix [out, in*kh*kw]; numbers take 16 bits up to 65,536 of them.
    """

    row: NDArray[Any]
    """Outputs that have a weight, rising, uint16 or int32."""
    column: NDArray[Any]
    """Columns that have a weight, likewise."""
    value: F32
    """[rows, columns] that are kept."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        matrix = weight.reshape(len(weight), -1) + np.float32(0)  # -0.0 is zero
        row, column = (np.flatnonzero((matrix != 0).any(axis=axis)) for axis in (1, 0))
        value = np.ascontiguousarray(matrix[np.ix_(row, column)])
        return cls(weight.shape, row.astype(_index(len(matrix))), column.astype(_index(matrix.shape[1])), value)

    def unpack(self) -> F32:
        matrix = np.zeros((self.rows, self.columns), np.float32)
        matrix[np.ix_(self.row, self.column)] = self.value
        return matrix.reshape(self.shape)

    def check(self) -> None:
        for name, size in (("row", self.rows), ("column", self.columns)):
            self._require_array(name, _index(size), -1)
            self._require_within(name, 0, size)
            rising = bool((np.diff(self.arrays[name].astype(np.int64)) > 0).all())
            self._require(rising, f"{name!r} does not rise")
        self._require_array("value", np.float32, len(self.row), len(self.column))


def _index(size: int) -> Any:
    return np.uint16 if size <= 1 << 16 else np.int32
