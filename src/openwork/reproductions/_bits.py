"""Recipes for weights on few bits: at once, and through more bits to fewer."""

from collections.abc import Sequence
from typing import Any

from ..recipes.recipe import Recipe
from ..recipes.rule import Rule
from ..recipes.schedule import Schedule
from ..recipes.steps import Step
from ..solvers.admm import ADMM

SOLVER = ADMM(rho=0.02, growth=1.4)
"""Weights must lie on their levels before they are put there: retraining cannot move them any more. From 1e-3 on, rho
pulls in the last of four epochs only; of ResNet-20 with 2 bits the loss right after is then 0.62, from 0.02 on 0.22."""

LEVELS: dict[int, dict[str, Any]] = {
    8: {"kind": "levels", "bits": 8},
    4: {"kind": "levels", "bits": 4},
    3: {"kind": "levels", "bits": 3},
    2: {"kind": "levels", "bits": 2},
    1: {"kind": "levels", "bits": 1, "zeros": "level"},
}


def at_once(name: str, bits: int, schedule: Schedule) -> Recipe:
    """Every layer on so many bits, the stem and the classifier too."""
    return Recipe(name=name, rules=(_rule(bits),), solver=SOLVER, schedule=schedule)


def in_steps(recipe: Recipe, way: Sequence[int], shape_epochs: int, retrain_epochs: int) -> Recipe:
    """The same through the bits of `way`, the last of which are the recipe's; epochs are those of each step."""
    epochs = {"shape_epochs": shape_epochs, "retrain_epochs": retrain_epochs}
    # Fewer updates in a step: rho grows as far as it does at once.
    solver = SOLVER.model_copy(update={"growth": SOLVER.growth ** len(way)})
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-in-steps",
            "steps": (*(Step(rules=(_rule(bits),)) for bits in way[:-1]), Step()),
            "solver": solver,
            "schedule": recipe.schedule.model_copy(update=epochs),
        }
    )


def _rule(bits: int) -> Rule:
    return Rule(targets="all", constraint=LEVELS[bits])
