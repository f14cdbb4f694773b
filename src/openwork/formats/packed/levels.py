"""Nested sparsity levels in compressed rows: within a row the sparsest level's weights come first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ShapeError
from .base import F32, Packed
from .csr import CSR


@dataclass(frozen=True)
class Levels(Packed):
    """Non-zeros row by row; a row begins with those of the sparsest level S, then comes what level S-1 adds, and so on
    to level 1. Running level s reads each row up to `level[row, S - s]`: changing the level moves no data.

    Bytes: those of CSR, and 4 for each row and level.
    """

    start: NDArray[np.int32]
    """First value of each row and the end of the last, [out + 1]."""
    level: NDArray[np.int32]
    """How many values of a row each level has, the sparsest first, [out, levels]."""
    index: NDArray[Any]
    """Column of each value in the matrix [out, in*kh*kw], uint16 or int32."""
    value: F32

    @classmethod
    def pack(cls, weight: F32, keeps: Sequence[NDArray[np.bool_]] = (), **settings: Any) -> Self:
        """`keeps`: which weights levels 2, 3, ... have, bool of the weight's shape."""
        matrix = weight.reshape(len(weight), -1)
        masks = [matrix != 0]
        for keep in keeps:
            mask = (matrix != 0) & keep.reshape(matrix.shape)
            if (mask & ~masks[-1]).any():
                raise ShapeError(f"{cls.kind()}: a level has weights that the one before has not")
            masks.append(mask)
        joins = np.sum(masks, axis=0)  # the sparsest level that has a weight, from 1; 0: none
        row, column = np.nonzero(matrix)
        order = np.lexsort((column, -joins[row, column], row))
        counts = np.stack([mask.sum(axis=1) for mask in masks[::-1]], axis=1).astype(np.int32)
        start = np.concatenate([[0], np.cumsum(counts[:, -1])]).astype(np.int32)
        row, column = row[order], column[order]
        return cls(weight.shape, start, counts, column.astype(CSR.index_type(matrix.shape[1])), matrix[row, column])

    def unpack(self, level: int = 1) -> F32:
        """The weight; of a level above 1, its weights only."""
        matrix = np.zeros((self.rows, self.columns), np.float32)
        row = np.repeat(np.arange(self.rows), np.diff(self.start))
        chosen = np.arange(len(row)) - self.start[row] < self.level[row, -level]
        matrix[row[chosen], self.index[chosen]] = self.value[chosen]
        return matrix.reshape(self.shape)

    def check(self) -> None:
        self._require_array("level", np.int32, self.rows, -1)
        self._require(self.level.shape[1] >= 1, "there is no level")
        self._require_array("start", np.int32, self.rows + 1)
        self._require_array("value", np.float32, -1)
        self._require_array("index", CSR.index_type(self.columns), len(self.value))
        self._require_starts("start", len(self.value))
        self._require_within("index", 0, self.columns)
        rising = bool((np.diff(self.level, axis=1) >= 0).all() and (self.level >= 0).all())
        self._require(
            rising and bool((self.level[:, -1] == np.diff(self.start)).all()), "'level' does not rise to rows"
        )
        places = np.repeat(np.arange(self.rows), np.diff(self.start)) * self.columns + self.index
        self._require(len(np.unique(places)) == len(places), "a row holds a column twice")
