"""What an observer is: from what was seen of an activation to where its grid ends."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from ...config import Plugin
from ..histogram import Histogram
from ..rounding import Grid


class Observer(Plugin, ABC):
    """A way of choosing the largest magnitude of a grid. Beyond it values are clipped, below it they are rounded, and
    the smaller it is, the more finely."""

    ROOM: ClassVar[str] = "quantization.observers"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Settings that contract tests try."""

    @abstractmethod
    def limit(self, seen: Histogram, levels: int) -> float:
        """The magnitude of the last level, above 0 and at most the largest one that was seen.

        Arguments:
            seen: at least one value is not zero.
            levels: steps from 0 to the last level, 1..255.
        """

    def fit(self, seen: Histogram, bits: int, signed: bool) -> Grid:
        """The grid of so many bits that ends there; any if nothing but zeros was seen."""
        levels = Grid.of(0.0, bits, signed).high
        return Grid.of(self.limit(seen, levels) if seen.largest else 0.0, bits, signed)
