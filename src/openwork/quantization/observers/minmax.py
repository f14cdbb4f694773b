"""Nothing is clipped."""

from ..histogram import Histogram
from .base import Observer


class MinMax(Observer):
    """The largest magnitude that was seen: right where outliers carry the meaning, coarse for everything else.

    Source: Jacob et al. 2018, arXiv:1712.05877, section 3.1.
    """

    def limit(self, seen: Histogram, levels: int) -> float:
        return seen.largest
