"""DARB: one value of every run of a row, and where in its run it lies."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import _bits
from ._rows import rows, weight
from .base import F32, Packed, fits

LARGEST = 10
"""Binary logarithm of the longest run, at most."""


@dataclass(frozen=True)
class DARB(Packed):
    """4 bytes a value and log2 b bits for its place, where b is the row's length of a run; 5 bytes a row.

    Rows are those of the matrix [out, kh*kw*in]. The column of value t of a row is t * b + place: nothing is searched
    or summed. Every row has the longest runs, `largest` at most, of which none holds two non-zeros; a run without any
    stores value 0 at place 0. The last run of a row may be shorter.
    """

    size: NDArray[np.uint8]
    """Binary logarithm of each row's b, [out]."""
    start: NDArray[np.int32]
    """First value of each row and the end of the last, [out + 1]; follows from `size`, stored for access to any row."""
    value: F32
    """Of each run, row by row."""
    place: NDArray[np.uint8]
    """Bit stream: of each value its column within the run."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        matrix = rows(weight).reshape(len(weight), -1)
        fits("darb", "the number of weights", weight.size, np.int32)
        size = np.zeros(len(matrix), np.uint8)
        longest = min(int(settings["largest"]).bit_length() - 1, LARGEST)
        for power in range(1, longest + 1):
            size[(np.count_nonzero(_runs(matrix, power), axis=2) <= 1).all(axis=1)] = power
        runs = [_runs(matrix[row : row + 1], int(power))[0] for row, power in enumerate(size)]
        place = [np.argmax(some != 0, axis=1) for some in runs]
        value = [np.take_along_axis(some, at[:, None], axis=1)[:, 0] for some, at in zip(runs, place, strict=True)]
        counts = np.array([len(some) for some in runs])
        return cls(
            weight.shape,
            size,
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            np.concatenate(value).astype(np.float32),
            _bits.pack(np.concatenate(place), np.repeat(size, counts)),
        )

    def unpack(self) -> F32:
        row, column = self._places()
        matrix = np.zeros((self.rows, self.columns), np.float32)
        matrix[row, column] = self.value
        return weight(matrix.reshape(-1, self.shape[1]), self.shape)

    def check(self) -> None:
        self._require_array("size", np.uint8, self.rows)
        self._require_within("size", 0, LARGEST + 1)
        self._require_array("start", np.int32, self.rows + 1)
        self._require_array("value", np.float32, -1)
        self._require_starts("start", len(self.value))
        runs = -(-self.columns // (1 << self.size.astype(np.int64)))
        self._require(bool((np.diff(self.start) == runs).all()), "'start' does not follow from 'size'")
        self._require_array("place", np.uint8, _bits.length(np.repeat(self.size, runs)))
        self._require(bool((self._places()[1] < self.columns).all()), "a place lies behind the end of its row")

    def _places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Row and column of every value."""
        counts = np.diff(self.start)
        row, size = np.repeat(np.arange(self.rows), counts), np.repeat(self.size, counts).astype(np.int64)
        run = np.arange(len(self.value)) - self.start[row]
        return row, (run << size) + _bits.unpack(self.place, size)


def _runs(matrix: F32, power: int) -> F32:
    """[rows, columns] -> [rows, runs, 2^power], the last run completed with zeros."""
    return np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % (1 << power)))).reshape(len(matrix), -1, 1 << power)
