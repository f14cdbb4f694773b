"""A fixed share is clipped."""

from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import AfterValidator

from ..histogram import Histogram
from .base import Observer


def _percent(value: float) -> float:
    if not 50 <= value <= 100:
        raise ValueError(f"{value:g} is not in 50..100; the customary ones are 99.9, 99.99 and 99.999")
    return value


class Percentile(Observer):
    """The magnitude that so many per cent of all values, zeros included, do not exceed.

    Source: Wu, Judd, Zhang, Isaev and Micikevicius 2020, arXiv:2004.09602, section 3.3.
    """

    percent: Annotated[float, AfterValidator(_percent)] = 99.99
    """Share of the values that is not clipped, per cent, 50..100."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"percent": 99}, {"percent": 100})

    def limit(self, seen: Histogram, levels: int) -> float:
        upto = seen.zeros + np.cumsum(seen.counts)
        wanted = self.percent / 100 * seen.total
        # Half of the values may be zero: a grid that ends there would hold nothing else.
        place = max(int(np.searchsorted(upto, wanted)), int(np.argmax(seen.counts > 0)))
        return min(seen.largest, (place + 1) * seen.width)
