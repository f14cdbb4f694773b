"""The dense phase of rows that begin with random weights: trained once for all rows that have it in common.

What it comes to depends on model, data and the dense part of the schedule alone, so a row goes on from its checkpoint
exactly as if it had trained it itself.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import write_bytes
from ..recipes.recipe import Recipe
from ..recipes.rule import Rule
from ..recipes.schedule import PHASES
from ..training.folder import CHECKPOINT, RunFolder
from ..training.result import Result

if TYPE_CHECKING:
    from .base import Row


def everything(targets: str = "all") -> Rule:
    """Keeps every weight of these layers: a recipe wants a rule."""
    return Rule(targets=targets, constraint={"kind": "unstructured", "sparsity": 1e-6})


def alone(recipe: Recipe) -> Recipe | None:
    """A recipe of the dense phase and nothing else; None if there is none, or nothing after it."""
    schedule = recipe.schedule
    if not schedule.dense_epochs or not any(schedule.epochs(phase) for phase in PHASES if phase != "dense"):
        return None
    others = {f"{phase}_{what}" for phase in PHASES if phase != "dense" for what in ("epochs", "rate")}
    others |= {"restarts", "updates_per_epoch", "norm_batches", "losses", "distillation"}
    dense = schedule.model_dump(exclude=others) | {f"{phase}_epochs": 0 for phase in PHASES if phase != "dense"}
    dense |= {"dense_epochs": schedule.dense_epochs, "label_smoothing": schedule.plain_loss.label_smoothing}
    return Recipe(name="dense", rules=(everything(),), schedule=dense)


def begin(row: "Row", home: Path, train: Callable[["Row", Path], Result]) -> None:
    """Let a row that has not begun yet do so after its dense phase, which `train` makes in a folder beside it, unless
    an earlier row's lies there."""
    recipe, folder = alone(row.recipe), RunFolder(home / row.name)
    if recipe is None or folder.begun or (folder.path / "result.json").exists():
        return
    dense = replace(row, title="the dense network", recipe=recipe)
    name = f"dense-{dense.digest}"
    train(replace(dense, name=name), home / name)
    write_bytes(folder.path / CHECKPOINT, (home / name / CHECKPOINT).read_bytes())
