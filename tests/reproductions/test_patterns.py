"""The comparison of patterns compares at equal sparsity, and every pattern holds the network that it is run on."""

import pytest
import torch

from openwork import models
from openwork.allocation.costs import stored
from openwork.recipes.match import fitted, match
from openwork.reproductions.base import Row
from openwork.reproductions.patterns import Patterns

ROWS = Patterns().rows()
IN_BYTES = ("circulant",)
"""Patterns without zeros: their share is that of the bytes."""


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_the_stages_come_to_the_sparsity_in_the_name(row: Row) -> None:
    torch.manual_seed(0)
    model = models.resolve("cifar10_resnet20", weights=None)
    found = [m for m in fitted(match(row.recipe, model)) if m.constraint is not None]
    assert len(found) == 18 and all("layer" in m.name for m in found)
    total = kept = 0
    for m in found:
        assert m.constraint is not None
        z = m.constraint.project(m.weight)
        assert m.constraint.violations(z) == 0
        total += z.numel()
        in_bytes = row.name.startswith(IN_BYTES)
        kept += stored(z, m.constraint)[1] // 4 if in_bytes else int(z.count_nonzero())
    wanted = int(row.name.rpartition("-")[2]) / 100
    assert 1 - kept / total == pytest.approx(wanted, abs=0.006)


def test_all_rows_share_solver_schedule_and_seed() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert len({row.recipe.schedule.model_dump_json() for row in ROWS}) == 1
    assert len({row.recipe.solver.model_dump_json() for row in ROWS}) == 1
