"""Filters or columns that fill whole crossbar tiles: how many stay, which, and what is refused."""

import itertools

import pytest
import torch

from openwork.constraints.crossbar import Crossbar
from openwork.errors import ShapeError


@pytest.mark.parametrize(
    ("filters", "tile", "sparsity", "kept"),
    [(256, 64, 0.5, 128), (256, 64, 0.6, 128), (256, 64, 0.65, 64), (256, 64, 0.99, 64), (100, 64, 0.5, 64),
     (100, 64, 0.01, 100), (6, 4, 0.5, 4)],
)  # fmt: skip
def test_the_nearest_number_that_fills_tiles_stays(filters: int, tile: int, sparsity: float, kept: int) -> None:
    w = torch.randn(filters, 8, generator=torch.Generator().manual_seed(0))
    for axis, weight, sides in (("filter", w, (128, tile)), ("column", w.T.contiguous(), (tile, 64))):
        z = Crossbar(tile=sides, axis=axis, sparsity=sparsity).project(weight)  # type: ignore[arg-type]
        assert int((z != 0).any(1 if axis == "filter" else 0).sum()) == kept


@pytest.mark.parametrize("axis", ["filter", "column"])
def test_no_other_choice_is_nearer(axis: str) -> None:
    for seed in range(10):
        w = torch.randn(4, 4, generator=torch.Generator().manual_seed(seed))
        found = (w - Crossbar(tile=(2, 2), axis=axis, sparsity=0.4).project(w)).square().sum()  # type: ignore[arg-type]
        energy = w.square().sum(1 if axis == "filter" else 0)
        least = min(energy.sum() - energy[list(kept)].sum() for kept in itertools.combinations(range(4), 2))
        torch.testing.assert_close(found, least)


def test_a_layer_within_one_tile_is_refused() -> None:
    with pytest.raises(ShapeError, match="the 16 filters of weight 16x8x3x3 fit into one tile, which holds 16"):
        Crossbar(tile=(128, 16), sparsity=0.5).project(torch.ones(16, 8, 3, 3))
    with pytest.raises(ShapeError, match="the 72 columns of weight 16x8x3x3 fit into one tile, which holds 128"):
        Crossbar(tile=(128, 16), axis="column", sparsity=0.5).project(torch.ones(16, 8, 3, 3))
