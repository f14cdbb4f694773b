"""Relative indices: each value with its distance from the one before."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from . import _bits
from .base import F32, Packed

WIDEST = 16
"""Bits of an index, at most."""
LARGEST = (1 << 31) - 1
"""Elements of a weight, at most."""


@dataclass(frozen=True)
class Relative(Packed):
    """4 bytes a value and `bits` bits for its distance from the value before, in row-major order. Where a gap exceeds
    2^bits - 1, fillers of `bits` bits each lead across: with nnz values and so many fillers 4 nnz + (nnz + fillers)
    bits / 8 bytes. `pack` chooses the bits that make it least; with 1 bit the indices are a bit map.
    """

    bits: int
    """Of an index."""
    entries: int
    """Values and fillers."""
    gap: NDArray[np.uint8]
    """Bit stream of the entries: distance - 1, or 2^bits - 1 for a filler, which goes 2^bits - 1 places on."""
    value: F32

    @classmethod
    def pack(cls, weight: F32, bits: int | None = None, **settings: Any) -> Self:
        """`bits` of an index, 1..16; None: those that take least."""
        place = np.flatnonzero(weight)
        gaps = np.diff(place, prepend=-1)
        if bits is None:
            bits = min(range(1, WIDEST + 1), key=lambda b: b * (len(gaps) + int(_fillers(gaps, b).sum())))
        fillers = _fillers(gaps, bits)
        entry = np.full(len(gaps) + int(fillers.sum()), (1 << bits) - 1)
        entry[np.arange(len(gaps)) + np.cumsum(fillers)] = gaps - fillers * ((1 << bits) - 1) - 1
        return cls(weight.shape, bits, len(entry), _bits.pack_even(entry, bits), weight.reshape(-1)[place])

    def unpack(self) -> F32:
        found = np.zeros(self.rows * self.columns, np.float32)
        found[self._places()] = self.value
        return found.reshape(self.shape)

    def check(self) -> None:
        whole = type(self.bits) is int and type(self.entries) is int
        self._require(whole and 1 <= self.bits <= WIDEST, f"indices of {self.bits!r} bits")
        size = self.rows * self.columns
        self._require(size <= LARGEST, f"a weight of {size} exceeds {LARGEST}")
        self._require(0 <= self.entries <= size, f"{self.entries} entries do not fit into the weight")
        self._require_array("gap", np.uint8, -(-self.entries * self.bits // 8))
        places = self._places()
        self._require_array("value", np.float32, len(places))
        last = int(places[-1]) if len(places) else -1
        self._require(last < size, "an index lies behind the end of the weight")

    def _places(self) -> NDArray[np.int64]:
        """Of every value, in the weight as one row."""
        filler = (1 << self.bits) - 1
        entry = _bits.unpack_even(self.gap, self.bits, self.entries)
        steps = np.cumsum(np.where(entry == filler, filler, entry + 1))
        places: NDArray[np.int64] = steps[entry != filler] - 1
        return places


def _fillers(gaps: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """How many lead across each gap."""
    return (gaps - 1) // ((1 << bits) - 1)
