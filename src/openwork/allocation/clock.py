"""Who knows how long layers take: the engine, or a table in its place."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Clock(Protocol):
    """Whoever knows how long layers take; times are microseconds on this machine."""

    def key(self, name: str) -> str:
        """Everything that the time of a layer depends on but its weight: equal layers have equal keys."""

    def layer(self, name: str, member: Tensor | None) -> float:
        """Of the layer, in all calls of one inference, if its weight is `member`; None: dense.

        Raises OpenworkError if it cannot be timed.
        """

    def network(self, members: Mapping[str, Tensor]) -> float:
        """Of the whole network if these layers have these weights; of none: the dense network."""
