"""N:M: n values of every m consecutive inputs, and where in their group they lie."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ShapeError
from . import _bits
from ._rows import rows, weight
from .base import F32, Packed

LONGEST = 1024
"""Channels in a group, at most."""


@dataclass(frozen=True)
class NM(Packed):
    """4 bytes a value, ceil(log2 m) bits for its place: 2:4 takes 4.25 bytes a value, the whole weight 53 % of dense.

    A group is m input channels of one output and kernel position; groups follow each other as in `[out, kh, kw, in]`. A
    group with fewer non-zeros than n still stores n values, zeros among them, at different places. Where m does not
    divide `in`, the last group is completed with zeros. With `order`, groups are taken of the channels in that order.
    """

    n: int
    """Values in a group."""
    m: int
    """Length of a group in channels."""
    value: F32
    """[groups, n], by rising place."""
    place: NDArray[np.uint8]
    """Bit stream: of each value its channel within the group."""
    order: NDArray[Any]
    """Which channel comes at each place, uint16 or int32, [whole groups * m]; empty for their natural order."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        n, m = int(settings["n"]), int(settings["m"])
        channels = rows(weight).reshape(-1, weight.shape[1])
        channels = np.pad(channels, ((0, 0), (0, -channels.shape[1] % m)))
        order = np.array(settings.get("order") or (), _index(channels.shape[1]))
        groups = (channels[:, order] if order.size else channels).reshape(-1, m)
        if (full := int((np.count_nonzero(groups, axis=1) > n).sum())) > 0:
            raise ShapeError(f"nm: {full} groups of {m} have more than {n} non-zeros; project the weight first")
        place = np.sort(np.argsort(groups == 0, axis=1, kind="stable")[:, :n], axis=1)
        value = np.take_along_axis(groups, place, axis=1)
        return cls(weight.shape, n, m, value, _bits.pack(place.ravel(), cls._widths(place.size, m)), order)

    def unpack(self) -> F32:
        groups = np.zeros((len(self.value), self.m), np.float32)
        np.put_along_axis(groups, self._places(), self.value, axis=1)
        found = groups.reshape(-1, self._channels)
        if self.order.size:
            found[:, self.order] = found.copy()
        return weight(found[:, : self.shape[1]], self.shape)

    def check(self) -> None:
        self._require(
            type(self.n) is int and type(self.m) is int and 1 <= self.n < self.m <= LONGEST,
            f"n = {self.n!r} of m = {self.m!r} is no pattern",
        )
        groups = self.rows * self.columns // self.shape[1] * self._channels // self.m
        self._require_array("value", np.float32, groups, self.n)
        self._require_array("place", np.uint8, _bits.length(self._widths(groups * self.n, self.m)))
        place = self._places()
        self._require(
            bool((np.diff(place, axis=1) > 0).all()) and int(place.max()) < self.m,
            f"places do not rise within a group of {self.m}",
        )
        self._require_array("order", _index(self._channels), -1)
        named = np.sort(self.order)
        self._require(
            not named.size or np.array_equal(named, np.arange(self._channels)),
            "'order' does not name each channel once",
        )

    @property
    def _channels(self) -> int:
        """Input channels with those that complete the last group."""
        return -(-self.shape[1] // self.m) * self.m

    def _places(self) -> NDArray[np.int64]:
        return _bits.unpack(self.place, self._widths(self.value.size, self.m)).reshape(self.value.shape)

    @staticmethod
    def _widths(values: int, m: int) -> NDArray[np.int64]:
        return np.full(values, (m - 1).bit_length())


def _index(channels: int) -> Any:
    return np.uint16 if channels <= 1 << 16 else np.int32
