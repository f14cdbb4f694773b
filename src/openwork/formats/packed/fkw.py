"""FKW, filter-kernel-weight: kernels sorted by pattern within their filter, so that positions cost nothing."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ShapeError
from .base import F32, Packed, fits

WIDEST = 62
"""Positions of the largest kernel whose patterns fit into 64 bits."""


@dataclass(frozen=True)
class FKW(Packed):
    """Kernels that are not zero, each with its input channel and the entries of its pattern.

    Filters come with most kernels first; within a filter, kernels come pattern after pattern, then by channel. With
    `group` g, g consecutive filters that share patterns and channels are one stored filter whose kernels hold the
    values of all of them. For F filters, K kernels or groups of them and k patterns of e entries in kernels of at most
    16 positions that is  2 F/g + 4 (F/g + 1) + 2 F/g (k + 1) + 2 K + 4 e g K + 2 k  bytes.
    """

    group: int
    """Filters that are stored as one."""
    reorder: NDArray[np.int16]
    """Which filter, or group of filters, is stored at each place, [filters]."""
    offset: NDArray[np.int32]
    """First kernel of each stored filter and the end of the last, [filters + 1]."""
    stride: NDArray[np.int16]
    """Where the kernels of each pattern begin in a stored filter, and where the last ends, [filters, patterns + 1]."""
    index: NDArray[np.int16]
    """Input channel of each kernel."""
    weights: F32
    """Values of each kernel at the entries of its pattern in row-major order, filter by filter of a group, [kernels,
    group * entries]."""
    patterns: NDArray[Any]
    """Bit masks, bit y * width + x for row y and column x; uint16, for kernels of more than 16 positions uint64."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        """Store a weight whose kernels lie in `patterns` (masks of `entries` bits), each in the first that holds it.

        Without `patterns` they are taken from the weight; without `entries` kernels are stored whole. `group`
        consecutive filters, one by default, are stored together.
        """
        group, shape = int(settings.get("group", 1)), weight.shape
        positions = int(np.prod(shape[2:]))
        if len(weight) % group:
            raise ShapeError(f"fkw: {len(weight)} filters are no multiple of group={group}; choose csr")
        if positions > WIDEST:
            raise ShapeError(f"fkw: a kernel of {positions} positions exceeds {WIDEST}; choose csr")
        fits("fkw", "number of filters", len(weight), np.int16)
        fits("fkw", "number of input channels", shape[1], np.int16)
        kernels = weight.reshape(-1, group, shape[1], positions).swapaxes(1, 2)
        used = (kernels != 0).any(axis=2) @ _bits(positions)
        patterns = settings.get("patterns") or _occurring(used, settings.get("entries") or positions, positions)
        masks = np.array(patterns, np.uint64)
        kind = _kinds(used, masks)
        if (kind == len(masks)).any():
            raise ShapeError("fkw: a kernel lies in none of the patterns; project the weight onto them first")
        return cls._sorted(shape, group, kernels, np.where(used == 0, -1, kind), masks)

    @classmethod
    def _sorted(
        cls, shape: tuple[int, ...], group: int, kernels: F32, kind: NDArray[np.int64], masks: NDArray[np.uint64]
    ) -> Self:
        """Kernels [filters, in, group, positions] with the number of each one's pattern, -1 for zeros, put in order."""
        reorder = np.argsort(-(kind >= 0).sum(axis=1), kind="stable")
        place, channel = np.nonzero(kind[reorder] >= 0)
        kinds = kind[reorder][place, channel]
        order = np.lexsort((channel, kinds, place))
        place, channel, kinds = place[order], channel[order], kinds[order]
        runs = np.zeros((len(kind), len(masks) + 1), np.int64)
        np.add.at(runs, (place, kinds + 1), 1)
        stride = runs.cumsum(axis=1)
        offset = np.concatenate([[0], stride[:, -1].cumsum()])
        places = _places(masks)[kinds]
        values = np.take_along_axis(kernels[reorder[place], channel], places[:, None, :], axis=2) + np.float32(0)
        return cls(
            shape,
            group,
            reorder.astype(np.int16),
            offset.astype(np.int32),
            stride.astype(np.int16),
            channel.astype(np.int16),
            values.reshape(len(values), group * places.shape[1]),
            masks.astype(cls._mask_type(kernels.shape[-1])),
        )

    def unpack(self) -> F32:
        filters, places = len(self.reorder), _places(self.patterns.astype(np.uint64))
        kernels = np.zeros((filters, self.shape[1], self.group, self._positions), np.float32)
        runs = np.diff(self.stride).astype(np.int64)
        kinds = np.repeat(np.tile(np.arange(len(self.patterns)), filters), runs.reshape(-1))
        stored = np.repeat(self.reorder.astype(np.int64), runs.sum(axis=1))
        values = self.weights.reshape(len(self.index), self.group, places.shape[1])
        whole = np.zeros((len(values), self.group, self._positions), np.float32)
        np.put_along_axis(whole, np.broadcast_to(places[kinds][:, None, :], values.shape), values, axis=2)
        kernels[stored, self.index] = whole
        return kernels.swapaxes(1, 2).reshape(self.shape)

    def check(self) -> None:
        self._require(isinstance(self.group, int) and self.group >= 1, f"group {self.group!r} is no positive number")
        self._require(self.rows % self.group == 0, f"{self.rows} filters are no multiple of group {self.group}")
        self._require(self._positions <= WIDEST, f"kernels have {self._positions} positions, more than {WIDEST}")
        filters = self.rows // self.group
        self._require_array("reorder", np.int16, filters)
        self._require_array("offset", np.int32, filters + 1)
        self._require_array("patterns", self._mask_type(self._positions), -1)
        self._require(len(self.patterns) >= 1, "there are no patterns")
        entries = {int(mask).bit_count() for mask in self.patterns}
        self._require(len(entries) == 1, "patterns differ in their number of entries")
        self._require_within("patterns", 1, 1 << self._positions)
        self._require_array("stride", np.int16, filters, len(self.patterns) + 1)
        self._require_array("index", np.int16, -1)
        self._require_array("weights", np.float32, len(self.index), self.group * entries.pop())
        self._require_starts("offset", len(self.index))
        self._require(bool((np.sort(self.reorder) == np.arange(filters)).all()), "'reorder' is no permutation")
        self._require_within("index", 0, self.shape[1])
        stride = self.stride.astype(np.int64)
        rising = (stride[:, 0] == 0) & (np.diff(stride, axis=1) >= 0).all(axis=1)
        ends = stride[:, -1] == np.diff(self.offset)
        self._require(bool((rising & ends).all()), "'stride' does not rise from 0 to each filter's number of kernels")
        kernel = np.repeat(np.arange(filters), np.diff(self.offset)) * self.shape[1] + self.index
        self._require(len(np.unique(kernel)) == len(kernel), "a kernel is stored twice")

    @property
    def _positions(self) -> int:
        return self.columns // self.shape[1]

    @staticmethod
    def _mask_type(positions: int) -> Any:
        return np.uint16 if positions <= 16 else np.uint64


def _bits(positions: int) -> NDArray[np.uint64]:
    return np.uint64(1) << np.arange(positions, dtype=np.uint64)


def _kinds(used: NDArray[np.uint64], masks: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The first of `masks` that holds each kernel, or their number."""
    found = np.full(used.shape, len(masks), np.int64)
    for number, mask in reversed(list(enumerate(masks))):
        found[used & ~mask == 0] = number
    return found


def _occurring(used: NDArray[np.uint64], entries: int, positions: int) -> tuple[int, ...]:
    """Patterns of `entries` positions that hold all kernels: what occurs, filled up with the first free positions."""
    found: dict[int, None] = {}
    for mask in map(int, np.unique(used[used > 0])):
        free = [1 << at for at in range(positions) if not mask >> at & 1]
        found[mask + sum(free[: max(0, entries - mask.bit_count())])] = None
    if any(mask.bit_count() != entries for mask in found):
        raise ShapeError(f"fkw: a kernel has more than entries={entries}; project the weight first")
    return tuple(found) or ((1 << entries) - 1,)


def _places(masks: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the entries of each pattern, [patterns, entries]."""
    return np.array([[at for at in range(64) if int(mask) >> at & 1] for mask in masks], np.int64)
