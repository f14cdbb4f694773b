"""Polarized fragments: magnitudes, and one sign for every few inputs of an output."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ...errors import ShapeError
from . import _bits
from .base import F32, Packed

ORDERS = {"channel": (0, 2, 3, 1), "height": (0, 1, 3, 2), "width": (0, 1, 2, 3)}
"""The axes [out, in, kh, kw] with the one last along which a fragment runs."""


@dataclass(frozen=True)
class Polarized(Packed):
    """4 bytes a weight and a bit a fragment: no weight needs a sign of its own, so the magnitudes may be quantized to
    whole bits, or be conductances.

    An output's weights lie in the order of its fragments; a fragment without weights counts as positive.
    """

    fragment: int
    """Weights in a fragment; the last of an output may have fewer."""
    order: str
    """Along which axis of a kernel a fragment runs: channel, height or width."""
    negative: NDArray[np.uint8]
    """Whether a fragment's weights are negative, row by row: a bit each, the lowest of a byte first."""
    magnitude: F32
    """[out, in*kh*kw], none below zero."""

    @classmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        fragment, order = int(settings["fragment"]), str(settings["order"])
        rows = _turned(weight, order).reshape(len(weight), -1)
        begin = np.arange(0, rows.shape[1], fragment)
        negative = np.minimum.reduceat(rows, begin, axis=1) < 0
        if (negative & (np.maximum.reduceat(rows, begin, axis=1) > 0)).any() or not np.isfinite(rows).all():
            raise ShapeError(f"polarized: a fragment of {fragment} weights has both signs; project the weight first")
        bits = _bits.pack(negative.reshape(-1).astype(np.int64), np.ones(negative.size, np.int64))
        return cls(weight.shape, fragment, order, bits, np.abs(rows))

    def unpack(self) -> F32:
        fragments = self._fragments
        negative = _bits.unpack(self.negative, np.ones(self.rows * fragments, np.int64)).reshape(self.rows, fragments)
        negative = np.repeat(negative, self.fragment, axis=1)[:, : self.columns]
        rows = np.where(negative > 0, -self.magnitude, self.magnitude) + np.float32(0)  # -0.0 is zero
        if len(self.shape) != 4:
            return rows.reshape(self.shape)
        axes = ORDERS[self.order]
        return np.ascontiguousarray(rows.reshape([self.shape[a] for a in axes]).transpose(np.argsort(axes)))

    def check(self) -> None:
        self._require(isinstance(self.fragment, int) and self.fragment >= 1, f"a fragment of {self.fragment}")
        self._require(isinstance(self.order, str) and self.order in ORDERS, f"the order {self.order!r} is unknown")
        self._require_array("negative", np.uint8, -(-self.rows * self._fragments // 8))
        self._require_array("magnitude", np.float32, self.rows, self.columns)
        self._require(not bool((self.magnitude < 0).any()), "'magnitude' holds numbers below zero")

    @property
    def _fragments(self) -> int:
        """Of an output."""
        return -(-self.columns // self.fragment)


def _turned(weight: F32, order: str) -> F32:
    return weight.transpose(ORDERS[order]) if weight.ndim == 4 else weight
