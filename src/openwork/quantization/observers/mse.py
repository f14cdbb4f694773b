"""Clipping and rounding weighed against each other by their squares."""

import numpy as np

from ..histogram import Histogram
from .base import Observer

_COARSE, _FINE = 100, 41


class MSE(Observer):
    """argmin over limits of sum |x - Q(x)|^2, over bins of the histogram: an even search, and a finer one around the
    best.

    Source: Sung, Shin and Hwang 2015, arXiv:1511.06488 (L2 error minimization).
    """

    def limit(self, seen: Histogram, levels: int) -> float:
        step = seen.largest / _COARSE
        best = self._best(seen, levels, step * np.arange(1, _COARSE + 1))
        near = np.linspace(max(best - step, step / 2), min(best + step, seen.largest), _FINE)
        return self._best(seen, levels, np.append(near, best))

    @staticmethod
    def _best(seen: Histogram, levels: int, limits: np.ndarray) -> float:
        # The last of equals: what clips less.
        noises = seen.noises(limits, levels)
        return float(limits[np.flatnonzero(noises == noises.min())[-1]])
