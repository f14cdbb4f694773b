"""BSPC: blocks whose rows share a list of columns; a strip of blocks keeps the rows that are not empty."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .base import F32, Packed, fits


@dataclass(frozen=True)
class BSPC(Packed):
    """4 bytes a value, 2 a column kept in a block, 4 a row kept, 4 a block and 4 a strip.

    The matrix [out, in*kh*kw], or its transpose for blocks that keep rows, is cut into strips of `height` rows, and
    strips into blocks of `width` columns; those at the edge are smaller. A strip stores its rows that are not empty, a
    block its columns that are not empty there, and the panel of those rows and columns, row by row.
    """

    height: int
    """Rows of a strip."""
    width: int
    """Columns of a block."""
    transposed: bool
    """Whether rows are inputs and columns are outputs."""
    row: NDArray[np.int32]
    """Rows that are stored, rising."""
    strip: NDArray[np.int32]
    """First stored row of each strip and the end of the last, [strips + 1]."""
    block: NDArray[np.int32]
    """First stored column of each block and the end of the last, [strips * blocks in a strip + 1]."""
    column: NDArray[np.uint16]
    """Stored columns, counted from the left of their block, rising."""
    value: F32
    """Panels, block by block."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        height, width, transposed = int(settings["height"]), int(settings["width"]), bool(settings["transposed"])
        fits("bspc", "a block's last column", width - 1, np.uint16)
        fits("bspc", "the number of weights", weight.size, np.int32)
        matrix = weight.reshape(len(weight), -1)
        matrix = matrix.T if transposed else matrix
        row = np.flatnonzero(matrix.any(axis=1))
        blocks, strips = -(-matrix.shape[1] // width), -(-len(matrix) // height)
        strip = np.searchsorted(row, np.arange(strips + 1) * height)
        counts, columns, panels = [], [], []
        for rows in np.split(row, strip[1:-1]):
            used = np.flatnonzero(matrix[rows].any(axis=0))
            count = np.bincount(used // width, minlength=blocks)
            counts.append(count)
            columns.append(used % width)
            panels += [matrix[np.ix_(rows, some)].ravel() for some in np.split(used, np.cumsum(count)[:-1])]
        return cls(
            weight.shape,
            height,
            width,
            transposed,
            row.astype(np.int32),
            strip.astype(np.int32),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            np.concatenate(columns).astype(np.uint16),
            np.concatenate(panels).astype(np.float32),
        )

    def unpack(self) -> F32:
        height, width = self._size
        matrix = np.zeros((height, width), np.float32)
        at = 0
        for number, (rows, columns) in enumerate(self._panels()):
            left = number % self._blocks * self.width
            panel = self.value[at : (at := at + len(rows) * len(columns))]
            matrix[np.ix_(rows, columns.astype(np.int64) + left)] = panel.reshape(len(rows), len(columns))
        return np.ascontiguousarray(matrix.T if self.transposed else matrix).reshape(self.shape)

    def check(self) -> None:
        sides = (self.height, self.width)
        self._require(all(type(n) is int and n >= 1 for n in sides), f"blocks of {self.height!r} x {self.width!r}")
        self._require(type(self.transposed) is bool, f"transposed is {self.transposed!r}")
        (height, width), strips = self._size, -(-self._size[0] // self.height)
        self._require_array("row", np.int32, -1)
        self._require_array("strip", np.int32, strips + 1)
        self._require_array("block", np.int32, strips * self._blocks + 1)
        self._require_array("column", np.uint16, -1)
        self._require_array("value", np.float32, -1)
        self._require_starts("strip", len(self.row))
        self._require_starts("block", len(self.column))
        self._require_within("row", 0, height)
        home = np.repeat(np.arange(strips), np.diff(self.strip))
        self._require(
            bool((np.diff(self.row) > 0).all() and (self.row // self.height == home).all()),
            "rows do not rise, or lie in another strip",
        )
        number = np.repeat(np.arange(strips * self._blocks), np.diff(self.block))
        place = number % self._blocks * self.width + self.column
        self._require(
            bool((self.column < self.width).all() and (place < width).all())
            and bool((np.diff(number // self._blocks * width + place) > 0).all()),
            "columns do not rise within a block, or lie outside it",
        )
        size = sum(len(rows) * len(columns) for rows, columns in self._panels())
        self._require_array("value", np.float32, size)

    @property
    def _size(self) -> tuple[int, int]:
        """Rows and columns of the matrix that is cut."""
        return (self.columns, self.rows) if self.transposed else (self.rows, self.columns)

    @property
    def _blocks(self) -> int:
        """Blocks in a strip."""
        return -(-self._size[1] // self.width)

    def _panels(self) -> list[tuple[NDArray[np.int32], NDArray[np.uint16]]]:
        """Of each block its rows and its columns, counted from its left."""
        return [
            (self.row[self.strip[strip] : self.strip[strip + 1]], self.column[self.block[at] : self.block[at + 1]])
            for strip in range(len(self.strip) - 1)
            for at in range(strip * self._blocks, (strip + 1) * self._blocks)
        ]
