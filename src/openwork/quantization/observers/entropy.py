"""What the grid tells of the distribution."""

import numpy as np

from ..histogram import BINS, Histogram
from .base import Observer

_MERGED = BINS // 2048
_TRIES = 256


class Entropy(Observer):
    """argmin over limits of KL(P || Q): P is the distribution of the magnitudes with those beyond the limit put into
    its last bin, Q what is left of it on the grid, each level spread evenly over the bins of P that it stands for and
    that are not empty.

    As TensorRT has it over 2,048 bins, except that zeros, which every grid holds, are left out, that bins go to the
    level which they are rounded to, and that about 256 limits are tried.

    Source: Migacz 2017, "8-bit inference with TensorRT", GPU Technology Conference.
    """

    def limit(self, seen: Histogram, levels: int) -> float:
        counts = seen.counts.reshape(-1, _MERGED).sum(1)
        width, used = seen.width * _MERGED, int(np.flatnonzero(counts)[-1]) + 1
        least = min(levels + 1, used)
        sizes = np.unique(np.linspace(least, used, _TRIES).astype(np.int64))
        found = [divergence(counts, int(size), levels) for size in sizes]
        best = int(sizes[len(sizes) - 1 - int(np.argmin(found[::-1]))])
        return min(seen.largest, best * width)


def divergence(counts: np.ndarray, size: int, levels: int) -> float:
    """KL(P || Q) if the grid ends with the first `size` bins, in nats; infinite where Q is 0 and P is not."""
    inside = counts[:size]
    p = inside.astype(np.float64)
    p[-1] += counts[size:].sum()
    level = np.minimum(np.rint((np.arange(size) + 0.5) * levels / size), levels).astype(np.int64)
    filled = inside > 0
    share = np.bincount(level, inside) / np.maximum(np.bincount(level, filled), 1)
    q = np.where(filled, share[level], 0.0)
    there = p > 0
    if not q.any() or (q[there] == 0).any():
        return float(np.inf)
    p, q = p / p.sum(), q / q.sum()
    return float((p[there] * np.log(p[there] / q[there])).sum())
