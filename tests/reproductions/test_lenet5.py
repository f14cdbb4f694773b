"""The rows of LeNet-5 come to the rates in their names, on the network that they are about."""

import pytest
import torch

from openwork import models
from openwork.recipes.match import match
from openwork.recipes.stages import stages
from openwork.reproductions.base import Row
from openwork.reproductions.lenet5 import EPOCHS, KEPT, OUR_EPOCHS, TOTAL, WEIGHTS, LeNet5
from openwork.training.result import count

ROWS = LeNet5().rows()


def test_the_network_has_the_weights_that_the_papers_count() -> None:
    found = {name: m.weight.numel() for name, m in models.resolve("lenet5").named_children()}
    assert found == WEIGHTS and TOTAL == 430_500


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_a_row_has_the_rate_that_it_is_held_against(row: Row) -> None:
    torch.manual_seed(0)
    model = models.resolve("lenet5")
    matches = match(row.recipe, model)
    with torch.no_grad():
        for m in matches:
            assert m.constraint is not None
            m.weight.copy_(m.constraint.project(m.weight))
            assert m.constraint.violations(m.weight) == 0
    _, nonzero = count(matches)
    name = row.name.removesuffix("-purified").rpartition("-")[2]
    asked = row.published_rate or float(name.rstrip("x"))
    assert TOTAL / nonzero < asked * 1.1
    assert asked <= TOTAL / nonzero or row.recipe.purify  # which removes more
    if not row.name.startswith("structured"):
        assert tuple(int(m.weight.count_nonzero()) for m in matches) == KEPT[name]


@pytest.mark.parametrize("row", [row for row in ROWS if row.recipe.steps], ids=lambda row: row.name)
def test_steps_lead_to_the_rate_in_about_as_many_epochs_as_one_go(row: Row) -> None:
    model = models.resolve("lenet5")
    found = stages(row.recipe, model)
    kept = [sum(round((1 - m.constraint.sparsity) * m.weight.numel()) for m in match(s.recipe, model)) for s in found]  # type: ignore[union-attr]
    assert kept == sorted(kept, reverse=True) and TOTAL / kept[0] == pytest.approx(16.4, abs=0.1)
    assert kept[-1] == sum(KEPT[row.name.rpartition("-")[2]])
    epochs = 2 * (OUR_EPOCHS if row.name.startswith("ours") else EPOCHS)
    assert sum(s.recipe.schedule.shape_epochs + s.recipe.schedule.retrain_epochs for s in found) == pytest.approx(
        epochs, rel=0.1
    )


def test_rows_that_name_a_paper_have_its_rate_and_a_demand_on_accuracy() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    for row in ROWS:
        demands = (row.published, row.published_drop, row.bar)
        assert any(demand is not None for demand in demands)
        assert (row.published_rate is not None) == bool(row.paper)
