"""Recipes for weights on few bits: at once, and through more bits to fewer."""

from collections.abc import Sequence
from typing import Any

from ..recipes.recipe import Recipe
from ..recipes.rule import Rule
from ..recipes.schedule import Schedule
from ..recipes.steps import Step
from ..solvers.admm import ADMM

RHO, TIMES = 0.02, 218
"""Where rho begins, and how many times as large it is in the end, whatever the number of updates between. Weights must
lie on their levels before they are put there: retraining cannot move them any more. From 1e-3 on, rho pulls in the last
of four epochs only; of ResNet-20 with 2 bits the loss right after is then 0.62, from 0.02 on 0.22."""

LEVELS: dict[int, dict[str, Any]] = {
    8: {"kind": "levels", "bits": 8},
    4: {"kind": "levels", "bits": 4},
    3: {"kind": "levels", "bits": 3},
    2: {"kind": "levels", "bits": 2},
    1: {"kind": "levels", "bits": 1, "zeros": "level"},
}


def at_once(name: str, bits: int, schedule: Schedule) -> Recipe:
    """Every layer on so many bits, the stem and the classifier too."""
    growth = round(TIMES ** (1 / (schedule.shape_epochs * schedule.updates_per_epoch)), 3)
    return Recipe(name=name, rules=(_rule(bits),), solver=ADMM(rho=RHO, growth=growth), schedule=schedule)


def in_steps(recipe: Recipe, way: Sequence[int]) -> Recipe:
    """The same in as many epochs, through the bits of `way`, the last of which are the recipe's."""
    steps = (*(Step(rules=(_rule(bits),)) for bits in way[:-1]), Step())
    return shared_out(recipe, steps).model_copy(update={"name": f"{recipe.name}-in-steps"})


def shared_out(recipe: Recipe, steps: Sequence[Step]) -> Recipe:
    """The epochs of a recipe shared out among `steps`, in each of which the solver has all its updates: with a third of
    them, and rho growing as far, the last of three steps ends far from its levels, and the network is lost."""
    schedule = recipe.schedule
    found = {
        "shape_epochs": schedule.shape_epochs // len(steps),
        "retrain_epochs": schedule.retrain_epochs // len(steps),
        "updates_per_epoch": schedule.updates_per_epoch * len(steps),
    }
    return recipe.model_copy(update={"steps": tuple(steps), "schedule": schedule.model_copy(update=found)})


def _rule(bits: int) -> Rule:
    return Rule(targets="all", constraint=LEVELS[bits])
