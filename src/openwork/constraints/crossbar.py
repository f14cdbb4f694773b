"""Crossbar tiles: filters or columns are kept in numbers that fill whole tiles."""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..errors import ShapeError
from .base import Sparsity, energies
from .block import Side


class Crossbar(Sparsity):
    """The strongest filters stay, or the strongest columns of `[out, in*kh*kw]`, as many as fill crossbar tiles.

    On a crossbar inputs are rows and filters are columns, so filters stay in multiples of the tile's columns, columns
    of the weight in multiples of the tile's rows: the one nearest to the sparsity asked for, one tile at least.

    project: argmin_Z ||W - Z||_F  s.t.  at most so many filters, or columns, differ from zero (exact; of equal norms
    the lowest index stays). Raises ShapeError if a single tile holds all of them.

    >>> Crossbar(tile=(4, 2), axis="filter", sparsity=0.4).project(torch.tensor([[1.0], [4.0], [3.0], [2.0]])).flatten()
    tensor([0., 4., 3., 0.])

    Source: Yuan et al. 2019, arXiv:1908.11691.
    """

    tile: tuple[Side, Side]
    """Rows (inputs) and columns (filters) of a crossbar, each >= 1."""
    axis: Literal["filter", "column"] = "filter"
    """What is dropped: filters, or the same kernel position of the same input channel in every filter."""

    FORMAT: ClassVar[str] = "kept"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"tile": (4, 2), "axis": "filter", "sparsity": 0.5},
        {"tile": (3, 8), "axis": "column", "sparsity": 0.25},
    )

    @property
    def step(self) -> int:
        """Filters or columns that fill a tile."""
        rows, columns = self.tile
        return columns if self.axis == "filter" else rows

    def budget(self, groups: int) -> int:
        return min(max(1, round(super().budget(groups) / self.step)) * self.step, groups)

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        have = shape[0] if self.axis == "filter" else torch.Size(shape[1:]).numel()
        if have <= self.step:
            raise ShapeError(
                f"crossbar: the {have} {self.axis}s of weight {'x'.join(map(str, shape))} fit into one tile, which "
                f"holds {self.step}; choose a smaller tile, or set on_misfit to skip"
            )

    def scores(self, w: Tensor) -> Tensor:
        return energies(w.flatten(1), (1,) if self.axis == "filter" else (0,))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        return keep.view(-1, *[1] * (len(shape) - 1)) if self.axis == "filter" else keep.view(1, *shape[1:])
