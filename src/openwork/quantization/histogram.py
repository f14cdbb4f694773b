"""How often values of each size were seen, in bounded memory."""

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from .rounding import Grid

BINS = 4096
"""Of which at least half are used; a power of two."""
_AT_ONCE = 1 << 22


def require_finite(largest: float, what: str) -> None:
    """ModelError, which names `what`, if its largest magnitude is NaN or infinite."""
    if not np.isfinite(largest):
        raise ModelError(
            f"{what} becomes NaN or infinite on the calibration data; give inputs scaled as in training, or a model "
            "that has not diverged"
        )


class Histogram:
    """Magnitudes of everything that was added, in equal bins from 0 on.

    When a larger magnitude comes, bins are merged in pairs until it fits, so counts are exact and the largest magnitude
    always lies in the upper half. Values that are exactly zero are counted by themselves: every grid holds them.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        """How many magnitudes lie in each bin."""
        self.zeros = 0
        """How many values are exactly zero."""
        self.least = np.inf
        """The least value."""
        self.largest = 0.0
        """The largest magnitude."""
        self._top = 0.0

    @property
    def width(self) -> float:
        """Of a bin."""
        return self._top / BINS

    @property
    def signed(self) -> bool:
        """Whether a negative value was seen."""
        return self.least < 0

    @property
    def total(self) -> int:
        """How many values were added."""
        return int(self.counts.sum()) + self.zeros

    @property
    def middles(self) -> np.ndarray:
        """What magnitudes of each bin count as: its middle, but nothing beyond the largest."""
        return np.asarray(np.minimum((np.arange(BINS) + 0.5) * self.width, self.largest))

    def add(self, values: Tensor, what: str = "a tensor") -> None:
        """Count the values of a float tensor of any shape. ModelError, which names `what`, for NaN and infinity."""
        for part in torch.split(values.detach().flatten(), _AT_ONCE):
            self._add(part.float(), what)

    def _add(self, values: Tensor, what: str) -> None:
        if not len(values):
            return
        low, high = (float(v) for v in values.aminmax())
        largest = max(-low, high)
        require_finite(largest, what)
        self.least, self.largest = min(self.least, low), max(self.largest, largest)
        if largest == 0:
            self.zeros += len(values)
            return
        if not self._top:
            self._top = largest
        while self._top < largest:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self._top *= 2
        sizes = values.abs()
        zeros = len(sizes) - int(sizes.count_nonzero())
        places = sizes.mul_(BINS / self._top).to(torch.int32).clamp_(max=BINS - 1)
        found = torch.bincount(places, minlength=BINS).numpy(force=True)
        found[0] -= zeros
        self.counts += found
        self.zeros += zeros

    def loss(self, grid: Grid) -> tuple[float, float, float]:
        """What rounding to a grid costs: power, power of the noise, and the share of values more than a step beyond."""
        limit = grid.scale * grid.high
        return self.power(), self.noise(limit, grid.high), self.beyond(limit + grid.scale)

    def noise(self, limit: float, levels: int) -> float:
        """Sum of the squared errors on a grid of `levels` steps from 0 to `limit`."""
        return float(self.noises(np.array([limit]), levels)[0])

    def noises(self, limits: np.ndarray, levels: int) -> np.ndarray:
        """`noise` for each of several limits."""
        step = (limits / levels)[:, None]
        sizes = self.middles
        found = (sizes - step * np.minimum(np.rint(sizes / step), levels)) ** 2 @ self.counts
        return np.asarray(found, np.float64)

    def power(self) -> float:
        """Sum of the squared values."""
        return float(self.middles**2 @ self.counts)

    def beyond(self, limit: float) -> float:
        """Share of all values whose magnitude is larger than `limit` by half a bin or more."""
        return float(self.counts[self.middles > limit].sum() / max(1, self.total))
