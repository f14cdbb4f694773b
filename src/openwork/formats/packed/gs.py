"""Gather-scatter: groups of B values whose columns are all different mod B."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ._rows import rows, weight
from .base import F32, Packed

MOST = 64
"""Banks, at most."""


@dataclass(frozen=True)
class GS(Packed):
    """4 bytes a value, 2 or 4 a column, 4 a bundle; with an order of rows 4 a row.

    Columns are those of the matrix [out, kh*kw*in], channels completed to a multiple of `banks`; they take 16 bits
    where it is at most 65,536 wide. A bundle of banks / per_row rows has groups of `banks` values: the first per_row
    lanes are of its first row, and so on. A lane without a weight holds value 0 and the column whose number is its
    bank.
    """

    banks: int
    """Values in a group."""
    per_row: int
    """Values of a group in one row."""
    value: F32
    """[groups, banks]."""
    index: NDArray[Any]
    """Column of each value, uint16 or int32: in a group every one of 0..banks-1 once, mod banks."""
    start: NDArray[np.int32]
    """First group of each bundle and the end of the last, [bundles + 1]."""
    order: NDArray[np.int32]
    """Which row comes at each place, [whole bundles * banks / per_row]; empty for their natural order."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        banks, per_row = int(settings["banks"]), int(settings["per_row"])
        height = banks // per_row
        channels = np.pad(rows(weight).reshape(-1, weight.shape[1]), ((0, 0), (0, -weight.shape[1] % banks)))
        matrix = channels.reshape(len(weight), -1)
        matrix = np.pad(matrix, ((0, -len(matrix) % height), (0, 0)))
        order = np.array(settings.get("order") or (), np.int32)
        matrix = matrix[order] if order.size else matrix
        width = matrix.shape[1]
        found = [_groups(bundle, per_row) for bundle in matrix.reshape(-1, height, width)]
        start = np.concatenate([[0], np.cumsum([len(groups) for groups in found])]).astype(np.int32)
        column = np.concatenate(found)
        value = np.pad(matrix, ((0, 0), (0, banks)))[cls._lanes(start, height, per_row), column]
        index = np.where(column < width, column, column - width).astype(cls._type(width))
        return cls(weight.shape, banks, per_row, value, index, start, order)

    def unpack(self) -> F32:
        height = self.banks // self.per_row
        matrix = np.zeros(((len(self.start) - 1) * height, self._width), np.float32)
        row, used = self._lanes(self.start, height, self.per_row), self.value != 0
        matrix[row[used], self.index[used]] = self.value[used]
        if self.order.size:
            matrix[self.order] = matrix.copy()
        channels = matrix[: self.rows].reshape(-1, self._channels)[:, : self.shape[1]]
        return weight(channels, self.shape)

    def check(self) -> None:
        self._require(
            type(self.banks) is int
            and type(self.per_row) is int
            and 2 <= self.banks <= MOST
            and 1 <= self.per_row <= self.banks
            and self.banks % self.per_row == 0,
            f"{self.per_row!r} of {self.banks!r} in a row is no pattern",
        )
        height = self.banks // self.per_row
        bundles = -(-self.rows // height)
        self._require_array("value", np.float32, -1, self.banks)
        self._require_array("index", self._type(self._width), len(self.value), self.banks)
        self._require_array("start", np.int32, bundles + 1)
        self._require_array("order", np.int32, -1)
        self._require_starts("start", len(self.value))
        self._require_within("index", 0, self._width)
        every = np.arange(self.banks)
        self._require(
            bool((np.sort(self.index % self.banks, axis=1) == every).all()), "a group does not have each bank once"
        )
        named = np.sort(self.order)
        self._require(
            not named.size or np.array_equal(named, np.arange(bundles * height)), "'order' does not name each row once"
        )

    @property
    def _channels(self) -> int:
        """Input channels with those that complete the last group."""
        return -(-self.shape[1] // self.banks) * self.banks

    @property
    def _width(self) -> int:
        """Columns of the matrix with completed channels."""
        return self.columns // self.shape[1] * self._channels

    @staticmethod
    def _lanes(start: NDArray[np.int32], height: int, per_row: int) -> NDArray[np.int64]:
        """The row, in order, of every lane: [groups, banks]."""
        bundle = np.repeat(np.arange(len(start) - 1), np.diff(start))
        return bundle[:, None] * height + np.repeat(np.arange(height), per_row)

    @staticmethod
    def _type(columns: int) -> Any:
        return np.uint16 if columns <= 1 << 16 else np.int32


def _groups(bundle: F32, per_row: int) -> NDArray[np.int64]:
    """Columns [groups, banks] of all non-zeros of `bundle` [rows, columns], in as few groups as can be; in an empty
    lane the number of columns plus that of its bank.

    Groups are colours of the edges of a bipartite graph: lanes on one side, banks on the other. As many colours as the
    largest number of edges at a node are enough (König 1916): where the ends of an edge have no colour free in common,
    a path of two colours is turned round.
    """
    height, width = bundle.shape
    banks = height * per_row
    row, column = np.nonzero(bundle)
    in_row, in_bank = np.bincount(row, minlength=height), np.bincount(column % banks, minlength=banks)
    groups = int(max(-(-in_row.max() // per_row), in_bank.max()))
    at_lane = [[-1] * groups for _ in range(banks)]
    at_bank = [[-1] * groups for _ in range(banks)]

    def paint(edges: list[tuple[int, int]], color: int) -> None:
        for lane, at in edges:
            at_lane[lane][color], at_bank[at % banks][color] = at, lane

    def erase(edges: list[tuple[int, int]], color: int) -> None:
        for lane, at in edges:
            at_lane[lane][color] = at_bank[at % banks][color] = -1

    # The weights of a row are dealt to its lanes in turn, so that none gets more than there are groups.
    turn = np.arange(len(row)) - np.repeat(np.cumsum(in_row) - in_row, in_row)
    for lane, at in zip((row * per_row + turn % per_row).tolist(), column.tolist(), strict=True):
        free, other, bank = at_lane[lane].index(-1), at_bank[at % banks].index(-1), at % banks
        path: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        while (met := at_bank[bank][free]) >= 0:
            path[0].append((met, at_lane[met][free]))
            if (following := at_lane[met][other]) < 0:
                break
            path[1].append((met, following))
            bank = following % banks
        erase(path[0], free)
        erase(path[1], other)
        paint(path[0], other)
        paint(path[1], free)
        paint([(lane, at)], free)
    found = np.array(at_lane, np.int64).reshape(banks, groups).T
    group, lane = np.nonzero(found < 0)
    left = np.array(at_bank).reshape(banks, groups).T < 0
    found[group, lane] = width + np.nonzero(left)[1]
    return np.sort(found.reshape(groups, height, per_row), axis=2).reshape(groups, banks)
