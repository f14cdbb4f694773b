"""Compressed rows: what a matrix without any pattern takes, and what patterns are compared with."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .base import F32, Packed


@dataclass(frozen=True)
class CSR(Packed):
    """Non-zeros row by row, each with its column: 4 bytes a value, 2 or 4 a column, 4 a row.

    Columns count in the matrix [out, in*kh*kw]; they take 16 bits where the matrix is at most 65,536 wide.
    """

    start: NDArray[np.int32]
    """First value of each row and the end of the last, [out + 1]."""
    index: NDArray[Any]
    """Column of each value, uint16 or int32."""
    value: F32

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        matrix = weight.reshape(len(weight), -1)
        row, column = np.nonzero(matrix)
        start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(matrix)))])
        return cls(
            weight.shape, start.astype(np.int32), column.astype(cls.index_type(matrix.shape[1])), matrix[row, column]
        )

    def unpack(self) -> F32:
        matrix = np.zeros((self.rows, self.columns), np.float32)
        matrix[np.repeat(np.arange(self.rows), np.diff(self.start)), self.index] = self.value
        return matrix.reshape(self.shape)

    def check(self) -> None:
        self._require_array("start", np.int32, self.rows + 1)
        self._require_array("value", np.float32, -1)
        self._require_array("index", self.index_type(self.columns), len(self.value))
        self._require_starts("start", len(self.value))
        self._require_within("index", 0, self.columns)
        row = np.repeat(np.arange(self.rows), np.diff(self.start))
        places = row * self.columns + self.index
        self._require(bool((np.diff(places) > 0).all()), "columns do not rise within a row")

    @staticmethod
    def index_type(columns: int) -> Any:
        """What holds a column of a matrix so wide."""
        return np.uint16 if columns <= 1 << 16 else np.int32
