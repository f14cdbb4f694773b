"""Steps of a recipe: partial prunings on the way to its rules, each with what differs while it lasts."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from ..config import Config
from ..constraints.base import Share
from ..errors import RecipeError
from ..solvers.base import Solver
from .rule import Rule, for_all
from .schedule import Epochs, Proportion, Rate

Count = Annotated[int, Field(ge=1)]
Target = Annotated[str, Field(min_length=1)]


def _solver(value: Any) -> Any:
    return None if value is None else Solver.parse(value)


class Step(Config):
    """A partial pruning: shape, cut and retrain, with the zeros of the steps before held. Empty, it prunes as the
    recipe's rules say; its fields are what differs.

    Budgets are of all the weights of a layer, zeros included, and only shrink from step to step. A layer that a step
    does not name has the budget of its rule. A target is what it is in a rule.

    >>> from openwork import Recipe, Rule, Unstructured
    >>> rule = Rule(targets="all", constraint=Unstructured(sparsity=0.99))
    >>> recipe = Recipe(rules=[rule], steps=[Step(rate=10), Step(sparsity=0.97), Step(keep={"fc1": 500}), Step()])

    Source: Ye et al. 2018, arXiv:1810.07378; Ye et al. 2019, arXiv:1903.09769.
    """

    ERROR = RecipeError

    rules: Annotated[tuple[Rule, ...] | None, Field(min_length=1)] = None
    """Instead of the recipe's rules: columns first, filters next, for example."""
    keep: dict[Target, Count] = Field(default_factory=dict)
    """How many weights stay in each layer of a target, as `{conv1: 100, fc1: 3600}`; structured constraints round it
    to whole groups."""
    sparsity: Annotated[dict[Target, Share], BeforeValidator(for_all)] = Field(default_factory=dict)
    """Share of zeros in each layer of a target, or one number for all layers that rules hit."""
    rate: Annotated[float | None, Field(gt=1)] = None
    """Weights over non-zero weights, of all layers together that rules can hit: the densities d of the rules become
    d**s, with the s that gives this rate."""
    share: Annotated[float | None, Field(gt=0, le=1)] = None
    """The s itself: how much of the way to the rules is behind after this step, on a logarithmic scale."""
    freeze: Proportion = 0.0
    """Share of the weights left in each layer, the largest, that do not move from the cut on: neither in this step's
    retraining nor in later steps, unless one of these prunes them. Of layers on levels the share that is nearest to
    them is all that the step projects; the rest stays free until a later step with the same levels."""
    solver: Annotated[SerializeAsAny[Solver] | None, BeforeValidator(_solver)] = None
    """Instead of the recipe's solver."""
    shape_epochs: Epochs | None = None
    """Instead of the schedule's."""
    restarts: Annotated[int | None, Field(ge=0)] = None
    """Instead of the schedule's."""
    retrain_epochs: Epochs | None = None
    """Instead of the schedule's."""
    updates_per_epoch: Annotated[int | None, Field(ge=1)] = None
    """Instead of the schedule's."""
    shape_rate: Rate | None = None
    """Instead of the schedule's. With or without it, each step begins its rates and its optimizer anew."""
    retrain_rate: Rate | None = None
    """Instead of the schedule's."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        given = [name for name in ("rate", "share") if getattr(self, name) is not None]
        given += [name for name in ("keep", "sparsity") if getattr(self, name)]
        if len(given) > 1 and given != ["keep", "sparsity"]:
            raise ValueError(f"{' and '.join(given)} each set the budget of the same layers; choose one of them")
        return self

    def schedule(self) -> dict[str, Any]:
        """Fields of the schedule that differ."""
        fields = ("shape_epochs", "restarts", "retrain_epochs", "updates_per_epoch", "shape_rate", "retrain_rate")
        return {name: value for name in fields if (value := getattr(self, name)) is not None}


class Ladder(Config):
    """Steps in short: `{count: 5}`, `{rates: [15, 18, 21]}` or `{increment: 3, to: 24}`; the last step is always the
    recipe's rules themselves.

    >>> [step.share for step in Ladder(count=4).steps()]
    [0.25, 0.5, 0.75, None]
    >>> [step.rate for step in Ladder(increment=3, to=9).steps()]
    [3.0, 6.0, 9.0, None]
    """

    ERROR = RecipeError

    count: Annotated[int | None, Field(ge=1)] = None
    """So many steps; each multiplies the density of each layer by the same factor."""
    rates: Annotated[tuple[Annotated[float, Field(gt=1)], ...] | None, Field(min_length=1)] = None
    """Rates of the steps before the last, rising."""
    increment: Annotated[float | None, Field(gt=0)] = None
    """Rates of the steps before the last are its multiples, up to `to`."""
    to: Annotated[float | None, Field(gt=1)] = None
    """The last multiple of `increment` at most."""
    freeze: Proportion = 0.0
    """Of each step."""

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        given = [name for name in ("count", "rates", "increment") if getattr(self, name) is not None]
        if len(given) != 1 or (self.increment is None) != (self.to is None):
            raise ValueError("give one of {count: N}, {rates: [...]}, {increment: X, to: Y}, or a list of steps")
        if any(a >= b for a, b in itertools.pairwise(self.rates or ())):
            raise ValueError(f"rates {', '.join(f'{r:g}' for r in self.rates or ())} must rise from step to step")
        return self

    def steps(self) -> tuple[Step, ...]:
        """The list that this is short for."""
        before = (
            [Step(share=at / self.count, freeze=self.freeze) for at in range(1, self.count)]
            if self.count is not None
            else [Step(rate=rate, freeze=self.freeze) for rate in self.rates or self._multiples()]
        )
        return (*before, Step(freeze=self.freeze))

    def _multiples(self) -> list[float]:
        assert self.increment is not None and self.to is not None
        rates = [self.increment * at for at in range(1, int(self.to / self.increment + 1e-9) + 1)]
        return [rate for rate in rates if rate > 1]


def listed(value: Any) -> Any:
    """Steps as a list, whichever way they were written."""
    if isinstance(value, Mapping):
        return Ladder.model_validate(value).steps()
    return value if isinstance(value, Sequence) else (value,)
