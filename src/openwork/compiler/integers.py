"""Grids: multiples k of one step s, k a whole number of 8 bits. What integer kernels can compute with.

Activations lie on a grid because the model rounds them there. Of weights nothing is marked: that they lie on one is
found from the numbers alone, as zeros are, also after batch norm was folded into them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .graph import Array, Node

LARGEST = 127
"""Largest magnitude of a whole number that a weight may be of its channel's step."""

ROUNDED = 2.0**-21
"""Relative error that roundings to float32 may have left in a weight: of a product, and of what was folded into it."""

SAMPLED = 64
"""Weights of a channel that a step is tried on first."""

CARRIED = (
    "max_pool",
    "channels",
    "slice",
    "pad",
    "concat",
    "flatten",
    "features",
    "swap",
    "regroup",
    "tokens",
    "token",
)
"""Operators of which `carries` may be true."""


class Bytes(NamedTuple):
    """The numbers k * scale, lo <= k <= hi, that an activation is rounded to; 0 is one of them."""

    scale: float
    lo: int
    hi: int

    @property
    def signed(self) -> bool:
        """Whether bytes of it are signed."""
        return self.lo < 0

    @property
    def inverse(self) -> float:
        """What values are multiplied by before they are rounded."""
        return float(1 / np.float32(self.scale))

    @property
    def fits(self) -> bool:
        """Whether bytes hold it."""
        return -128 <= self.lo <= 0 <= self.hi <= (127 if self.lo < 0 else 255)

    @property
    def fields(self) -> dict[str, float]:
        """What a step that rounds floats to it is told."""
        return {"inverse": self.inverse, "lo": self.lo, "hi": self.hi}

    def nearest(self, value: float) -> int:
        """The k of the number nearest to a bound, which may be infinite; ties to even, as kernels round."""
        if math.isinf(value):
            return self.hi if value > 0 else self.lo
        return int(min(max(np.rint(np.float32(value) * np.float32(self.inverse)), self.lo), self.hi))

    def clamped(self, lo: float, hi: float) -> "Bytes":
        """Where values come to lie that are clamped to [lo, hi] before they are rounded."""
        return Bytes(self.scale, self.nearest(lo), self.nearest(hi))


def merged(grids: list[Bytes | None]) -> Bytes | None:
    """One grid that holds the numbers of several; None if they have different steps, or bytes do not hold all."""
    found = [g for g in grids if g is not None]
    if len(found) < len(grids) or len({g.scale for g in found}) != 1:
        return None
    whole = Bytes(found[0].scale, min(g.lo for g in found), max(g.hi for g in found))
    return whole if whole.fits else None


def bytes_of(nodes: Mapping[str, Node], name: str) -> Bytes | None:
    """The grid that a value lies on, if any."""
    node = nodes[name]
    if (own := node.attrs.get("bytes")) is not None:
        return own  # type: ignore[no-any-return]
    return merged([bytes_of(nodes, source) for source in node.inputs]) if carries(node) else None


def carries(node: Node) -> bool:
    """Whether all results are values of the inputs, or 0, and the larger the larger those are."""
    return node.op in CARRIED and node.plain and has_pixels(node)


def has_pixels(node: Node) -> bool:
    """Whether every window of a max-pooling surely holds a pixel: of padding alone, minus infinity is the largest."""
    return bool(node.op != "max_pool" or node["padding"] == (0, 0) or node["dilation"] == (1, 1))


def is_integer(node: Node) -> bool:
    """Whether a layer has whole numbers for weights."""
    return "step" in node.constants


@dataclass(frozen=True)
class WholeWeights:
    """Weights as whole numbers of a step for each output channel."""

    whole: NDArray[np.int8]
    """In the weights' shape."""
    step: NDArray[np.float32]
    """[out]"""


def whole_weights(weight: Array) -> WholeWeights | None:
    """Weights [out, ...] as whole numbers k, |k| <= 127, of a step s for each output channel, w = k s up to the
    rounding of float32; None if they are not. The largest step is taken that does it; a channel of zeros has step 1.

    Example:
        >>> found = whole_weights(np.array([[0.5, 0.0, -1.5], [0.7, 0.7, 0.0]], np.float32))
        >>> found.whole.tolist(), found.step.tolist()
        ([[1, 0, -3], [1, 1, 0]], [0.5, 0.699999988079071])
    """
    rows = np.asarray(weight).reshape(len(weight), -1)
    whole, step = np.zeros(rows.shape, np.int8), np.ones(len(rows), np.float32)
    for at, row in enumerate(rows):
        used = np.flatnonzero(row)
        if len(used):
            found = _multiples(row[used].astype(np.float64))  # not all rows at once: the largest layers fill memory
            if found is None:
                return None
            whole[at, used], step[at] = found
    return WholeWeights(whole.reshape(weight.shape), step)


def _multiples(values: NDArray[np.float64]) -> tuple[NDArray[np.int8], float] | None:
    """Non-zero numbers as whole multiples of the largest step of which they are."""
    largest = np.abs(values).max()
    relative = values / largest
    counts = np.arange(1, LARGEST + 1)[:, None]  # of the step in the largest number
    few = relative[:: -(-len(relative) // SAMPLED)]
    for count in counts[_near_whole(few * counts).all(axis=1), 0]:
        if _near_whole(relative * count).all():
            k = np.rint(relative * count)
            step = float(np.float32((k @ values) / (k @ k)))
            return (k.astype(np.int8), step) if 0 < step < math.inf else None
    return None


def _near_whole(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which numbers are whole but for rounding; 0 is not, as no weight here is."""
    whole = np.rint(values)
    near: NDArray[np.bool_] = (whole != 0) & (np.abs(values - whole) <= ROUNDED * np.abs(values))
    return near
