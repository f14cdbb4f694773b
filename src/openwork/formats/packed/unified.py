"""Blocks of weights that are zero, share a magnitude, or are kept as they are."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import _bits
from .base import F32, Packed

ZERO, SAME, KEPT = range(3)


@dataclass(frozen=True)
class Unified(Packed):
    """2 bits a block; of a block with one magnitude 4 bytes and a bit a weight, of one that is kept 4 bytes a weight.

    Blocks are h x w parts of the matrix [out, in*kh*kw], smaller ones at its edges, row by row.
    """

    block: tuple[int, int]
    """Height and width of a block."""
    kinds: NDArray[np.uint8]
    """What each block is, 0 zero, 1 one magnitude, 2 kept: 2 bits each, the lowest of a byte first."""
    signs: NDArray[np.uint8]
    """Of each weight in blocks of one magnitude, row by row within a block: 1 is negative; a bit each."""
    magnitude: F32
    """Of each block of one magnitude."""
    value: F32
    """Weights of kept blocks, row by row within a block."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        block = (int(settings["block"][0]), int(settings["block"][1]))
        matrix = weight.reshape(len(weight), -1) + 0.0  # -0.0 is zero
        owner = _owners(matrix.shape, block)
        order = np.argsort(owner, axis=None, kind="stable")
        owner, values = owner.reshape(-1)[order], matrix.reshape(-1)[order]
        begin = np.flatnonzero(np.diff(owner, prepend=-1))
        largest, least = (reduce(np.abs(values), begin) for reduce in (np.maximum.reduceat, np.minimum.reduceat))
        # a block of one weight is kept: its sign would be a bit too many
        many = np.diff(begin, append=len(values)) > 1
        kinds = np.where(largest == 0, ZERO, np.where(many & (least == largest), SAME, KEPT))
        same, kept = (values[kinds[owner] == kind] for kind in (SAME, KEPT))
        return cls(
            weight.shape,
            block,
            _bits.pack(kinds, np.full(len(kinds), 2)),
            _bits.pack((same < 0).astype(np.int64), np.ones(len(same), int)),
            largest[kinds == SAME],
            kept,
        )

    def unpack(self) -> F32:
        owner, kinds = self._owners, self._kinds
        order = np.argsort(owner, axis=None, kind="stable")
        sorted_owner = owner.reshape(-1)[order]
        which = kinds[sorted_owner]
        values = np.zeros(owner.size, np.float32)
        magnitude = np.zeros(len(kinds), np.float32)
        magnitude[kinds == SAME] = self.magnitude
        same = which == SAME
        negative = _bits.unpack(self.signs, np.ones(int(same.sum()), int)) > 0
        size = magnitude[sorted_owner[same]]
        values[same] = np.where(negative, -size, size)
        values[which == KEPT] = self.value
        matrix = np.zeros(owner.size, np.float32)
        matrix[order] = values
        return matrix.reshape(self.shape)

    def check(self) -> None:
        sides = isinstance(self.block, tuple) and len(self.block) == 2 and all(isinstance(n, int) for n in self.block)
        self._require(sides and min(self.block) >= 1, f"a block of {self.block}")
        h, v = self.block
        blocks = -(-self.rows // h) * -(-self.columns // v)
        self._require_array("kinds", np.uint8, -(-blocks // 4))
        self._require_array("signs", np.uint8, -1)
        self._require_array("magnitude", np.float32, -1)
        self._require_array("value", np.float32, -1)
        kinds = self._kinds
        self._require(bool((kinds <= KEPT).all()), "'kinds' holds an unknown kind of block")
        down, across = (
            np.minimum(n, size - n * np.arange(-(-size // n)))
            for n, size in zip(self.block, (self.rows, self.columns), strict=True)
        )
        sizes = np.outer(down, across).reshape(-1)
        self._require_array("signs", np.uint8, -(-int(sizes[kinds == SAME].sum()) // 8))
        self._require_array("magnitude", np.float32, int((kinds == SAME).sum()))
        self._require_array("value", np.float32, int(sizes[kinds == KEPT].sum()))

    @property
    def _kinds(self) -> NDArray[np.int64]:
        h, v = self.block
        return _bits.unpack(self.kinds, np.full(-(-self.rows // h) * -(-self.columns // v), 2))

    @property
    def _owners(self) -> NDArray[np.intp]:
        return _owners((self.rows, self.columns), self.block)


def _owners(shape: tuple[int, ...], block: tuple[int, int]) -> NDArray[np.intp]:
    """The block of every weight of a matrix."""
    row, column = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    return row // block[0] * -(-shape[1] // block[1]) + column // block[1]
