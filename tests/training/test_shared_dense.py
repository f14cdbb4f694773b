"""Rows of a reproduction share the dense phase that they begin with, and come to the same weights as alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from test_resume import StopAt, same_weights
from tiny_task import TinyData, tiny_net

import openwork as ow
from openwork.losses.labels import Labels
from openwork.losses.soft import Soft
from openwork.recipes.recipe import Recipe
from openwork.recipes.steps import Ladder
from openwork.reproductions import base
from openwork.training.progress import Progress, Silent
from openwork.training.result import Result

FIRST = Recipe.parse(
    """
rules: [{targets: all, constraint: {kind: unstructured, sparsity: 0.5}}]
solver: {kind: admm, rho: 0.01}
schedule: {dense_epochs: 2, shape_epochs: 2, retrain_epochs: 1, batch_size: 16, dense_rate: {peak: 0.05}}
"""
)


def changed(**schedule: Any) -> Recipe:
    return FIRST.model_copy(update={"schedule": FIRST.schedule.model_copy(update=schedule)})


TAUGHT = (Labels(weight=0.5), Soft(weight=0.5, temperature=3.0))
RECIPES = {
    "first": FIRST,
    "steps": FIRST.model_copy(update={"steps": Ladder(rates=(1.5,)).steps()}),
    "taught": changed(shape_epochs=1, losses=TAUGHT),
    "longer": changed(dense_epochs=3),
    "dense": changed(shape_epochs=0, retrain_epochs=0),
}


class Tiny(base.Reproduction):
    TITLE: ClassVar[str] = "Tiny"
    MODEL: ClassVar[str] = "lenet5"
    DATA: ClassVar[str] = "mnist"
    TOGETHER: ClassVar[bool] = False

    def rows(self) -> list[base.Row]:
        return [base.Row(name, name, recipe) for name, recipe in RECIPES.items()]

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {}

    @classmethod
    def name(cls) -> str:
        return "tiny"


def run(recipe: Recipe, folder: Path | None = None, progress: Progress | None = None) -> Result:
    found: Result = ow.compress(tiny_net(), recipe, TinyData(), folder, threads=1, progress=progress or Silent())
    return found


def reproduce(folder: Path, rows: tuple[str, ...], stop: int | None = None) -> list[str]:
    """Names of the rows that were trained."""
    trained = []

    def train(row: base.Row, run_dir: Path) -> Result:
        trained.append(row.name)
        return run(row.recipe, run_dir, StopAt(stop) if stop else None)

    base.reproduce(Tiny(), base.Order(rows=rows, folder=folder), train, torch.zeros(1), Silent())
    return trained


def test_rows_share_what_is_the_same_and_nothing_else(tmp_path: Path) -> None:
    trained = reproduce(tmp_path, tuple(RECIPES))
    shared, other = dict.fromkeys(name for name in trained if name.startswith("dense-"))
    assert trained == [shared, "first", shared, "steps", shared, "taught", other, "longer", "dense"]
    for name, recipe in RECIPES.items():
        alone = run(recipe)
        again = run(recipe, tmp_path / "tiny" / name)
        assert same_weights(again.model.state_dict(), alone.model.state_dict()), name
        losses = [[line["train_loss"] for line in found.history] for found in (again, alone)]
        assert losses[0] == losses[1] and again.dense_accuracy == alone.dense_accuracy
    assert reproduce(tmp_path, ("first", "longer")) == ["first", "longer"]  # finished: nothing dense is looked at


@pytest.mark.parametrize("stop", [3, 13])
def test_it_goes_on_after_an_interruption(tmp_path: Path, stop: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        reproduce(tmp_path, ("first",), stop)
    trained = reproduce(tmp_path, ("first",))
    assert (trained == ["first"]) == (stop > 12)
    found = run(FIRST, tmp_path / "tiny/first")
    assert same_weights(found.model.state_dict(), run(FIRST).model.state_dict())
