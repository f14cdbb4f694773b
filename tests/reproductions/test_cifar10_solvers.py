"""Rows of the comparison of solvers differ in the solver alone, and their rates are of the whole network."""

import pytest
import torch

from openwork import models, plugins
from openwork.recipes.match import match
from openwork.reproductions.base import Row
from openwork.reproductions.cifar10_solvers import PATTERNS, RATES, SOLVERS, WIDTHS, Cifar10Solvers
from openwork.training.result import count

ROWS = Cifar10Solvers().rows()


def model_of(row: Row) -> torch.nn.Module:
    torch.manual_seed(0)
    return models.resolve(row.model or Cifar10Solvers.MODEL, **{**row.options, "weights": None})


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_rates_are_of_the_whole_network(row: Row) -> None:
    model = model_of(row)
    matches = match(row.recipe, model)
    weights, _ = count(matches)
    with torch.no_grad():
        for m in matches:
            if m.constraint is not None:
                m.weight.copy_(m.constraint.project(m.weight))
    _, nonzero = count(matches)
    times = float(row.name.rpartition("-")[2].rstrip("x"))
    if row.name.startswith("scratch"):
        assert nonzero == weights and 268_336 / weights == pytest.approx(times, rel=0.13)
    else:
        assert weights / nonzero == pytest.approx(times, rel=0.003)


def test_rows_differ_in_the_solver_alone_or_in_steps() -> None:
    pruned = [row for row in ROWS if not row.name.startswith("scratch")]
    deep = [row for row in pruned if row.name.startswith("resnet56")]
    assert len(pruned) - len(deep) == len(SOLVERS) * len(PATTERNS) * len(RATES) and len(deep) == 3 * len(PATTERNS)
    assert len({row.recipe.schedule for row in pruned if not row.recipe.steps}) == 1
    assert {row.name.partition("-")[0] for row in pruned if row.recipe.steps} == {"progressive"}
    assert len({row.name for row in ROWS}) == len(ROWS) and set(WIDTHS) == set(RATES)
    phases = ("dense", "shape", "retrain")
    epochs = {
        max(1, len(row.recipe.steps)) * sum(row.recipe.schedule.epochs(phase) for phase in phases) for row in ROWS
    }
    assert epochs == {6}
    assert {solver.kind() for _, solver in SOLVERS.values()} == set(plugins.names("solvers"))
