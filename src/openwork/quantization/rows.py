"""Activations of which every row, such as a token of a sentence, is rounded by its own largest value.

What a row holds decides on its scale when the network runs, so nothing has to be calibrated and nothing is clipped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .histogram import require_finite
from .network import op_of

LEAST = 1e-30
"""What counts as the largest value of a row whose values are all smaller; the engine's, too."""


def round_rows(x: Tensor, high: int) -> Tensor:
    """Rows of `x`, its last axis, on grids of their own: from -high to high times the row's largest magnitude / high.

    >>> round_rows(torch.tensor([[0.5, -1.0, 0.2], [100.0, 30.0, 0.0]]), high=2)
    tensor([[  0.5000,  -1.0000,   0.0000],
            [100.0000,  50.0000,   0.0000]])
    """
    scale = x.abs().amax(-1, keepdim=True).clamp(min=LEAST) / high
    return torch.round(x * scale.reciprocal()) * scale


def rounds_rows(node: fx.Node) -> bool:
    """Whether a graph of ATen operators has `round_rows` there."""
    whole, scale = node.args if op_of(node) == "mul" and len(node.args) == 2 else (None, None)
    if not (isinstance(whole, fx.Node) and op_of(whole) == "round"):
        return False
    inverse = whole.args[0].args[-1] if isinstance(whole.args[0], fx.Node) else None
    return isinstance(inverse, fx.Node) and op_of(inverse) == "reciprocal" and inverse.args[0] is scale


@dataclass(frozen=True)
class RowGrid:
    """The numbers that every row is rounded to: from -high to high times a scale of its own."""

    high: int
    """At most 127."""

    @classmethod
    def of(cls, bits: int) -> "RowGrid":
        """As many values as `bits` hold, but one, as many below 0 as above."""
        return cls(2 ** (bits - 1) - 1)

    @property
    def levels(self) -> str:
        """In words, for tables."""
        return f"{-self.high}..{self.high}, by row"

    def round(self, x: Tensor) -> Tensor:
        """`x` on the grid."""
        return round_rows(x, self.high)

    def call(self, x: fx.Node) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The call that rounds a value of a graph."""
        return round_rows, (x, self.high)


class SeenRows:
    """What rounding did to the rows that were added."""

    def __init__(self, grid: RowGrid) -> None:
        self.grid, self._power, self._noise = grid, 0.0, 0.0
        self.largest = 0.0
        """The largest magnitude."""

    def add(self, values: Tensor, what: str = "a tensor") -> None:
        """Measure the rows of a float tensor. ModelError, which names `what`, for NaN and infinity."""
        largest = float(values.abs().amax()) if values.numel() else 0.0
        require_finite(largest, what)
        self.largest = max(self.largest, largest)
        self._power += float(values.double().square().sum())
        self._noise += float((self.grid.round(values) - values).double().square().sum())

    def loss(self, grid: RowGrid) -> tuple[float, float, float]:
        """What rounding to the grid costs: power, power of the noise, and the share that is clipped, none."""
        return self._power, self._noise, 0.0
