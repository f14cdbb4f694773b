"""Recipes with steps on the command line: shorter trials, examples held out, lines that say where a run is."""

import io

import pytest
from rich.console import Console

from openwork.cli._progress import Bars
from openwork.cli._way import adapted
from openwork.errors import RecipeError
from openwork.recipes.recipe import Recipe

RECIPE = Recipe.parse(
    """
    rules: [{targets: all, constraint: {kind: unstructured, sparsity: 0.9}}]
    steps: [{sparsity: 0.5, shape_epochs: 8}, {retrain_epochs: 0}, {}]
    schedule: {dense_epochs: 0, shape_epochs: 6, retrain_epochs: 4}
    """
)


def test_a_shorter_trial_shortens_every_step() -> None:
    found = adapted(RECIPE, 3, 0.1)
    assert (found.schedule.dense_epochs, found.schedule.shape_epochs, found.schedule.retrain_epochs) == (0, 1, 1)
    assert [step.shape_epochs for step in found.steps] == [1, None, None]
    assert [step.retrain_epochs for step in found.steps] == [None, 0, None]
    assert found.schedule.seed == 3 and adapted(RECIPE, None, 1.0) == RECIPE
    assert adapted(RECIPE, None, 2.0).steps[0].shape_epochs == 16
    with pytest.raises(RecipeError, match="--seed -1: must be 0 or more"):
        adapted(RECIPE, -1, 1.0)


def test_an_epoch_says_its_step_and_candidate() -> None:
    text = io.StringIO()
    with Bars(Console(file=text, width=120)) as bars:
        bars.epoch_started("shape", 4, 20, 10)
        bars.epoch_ended({"train_loss": 0.5, "seconds": 1.0, "step": 2, "candidate": 3})
        bars.epoch_started("retrain", 5, 20, 10)
        bars.epoch_ended({"train_loss": 0.25, "seconds": 1.0})
    first, second = text.getvalue().splitlines()
    assert first.startswith("epoch 5/20 shape (step 2, candidate 3): loss 0.500")
    assert second.startswith("epoch 6/20 retrain: loss 0.250")
