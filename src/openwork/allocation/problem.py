"""What is to be picked: tables of options, and how much of each cost the whole network may spend."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .. import plugins
from ..errors import RecipeError
from ..recipes.budget import Budget, shown
from . import tables
from .tables import LayerTable, Picks


@dataclass(frozen=True)
class Problem:
    """Tables of options, and what the network may cost."""

    budget: Budget
    layers: list[LayerTable]
    dense: Mapping[str, float]
    """Costs of the whole dense network."""
    rest: Mapping[str, float]
    """What is spent whatever is picked."""

    @property
    def limits(self) -> dict[str, float]:
        """The most that the whole network may cost."""
        return {name: self.budget.limit(name, self.dense[name]) for name in self.budget.limited}

    def least(self, name: str) -> float:
        """The least that the whole network can cost."""
        return tables.least(self.layers, name) + self.rest[name]

    def spent(self, name: str, picks: Picks) -> float:
        """What the whole network costs with these picks, as a sum over layers and the rest."""
        return tables.total(self.layers, picks, name) + self.rest[name]

    def solved(self, limits: Mapping[str, float]) -> Picks:
        """The picks of the budget's method; RecipeError if there can be none."""
        for name, limit in limits.items():
            if self.least(name) > limit:
                raise self.impossible(name, self.least(name))
        left = {name: limit - self.rest[name] for name, limit in limits.items()}
        # A sum in another order may round to a last bit more.
        left = {name: limit + 1e-9 * abs(limit) for name, limit in left.items()}
        none: Picks = (0,) * len(self.layers)
        if tables.met(self.layers, none, left):
            return none
        picks: Picks = plugins.module("allocation.methods", self.budget.method).pick(self.layers, left)
        if not tables.met(self.layers, picks, left):
            missed = next(n for n in left if tables.total(self.layers, picks, n) > left[n])
            raise self.impossible(missed, self.spent(missed, picks))
        return picks

    def impossible(self, name: str, nearest: float) -> RecipeError:
        """Says what would be possible, rounded so that it is."""
        share = math.ceil(1000 * nearest / self.dense[name]) / 10
        bounds = "rules and break-even let" if self.budget.latency else "the rules let"
        return RecipeError(
            f"constraints.{name}: {getattr(self.budget, name)} is impossible: as sparse as {bounds} it be, the "
            f"network takes {shown(name, nearest)} of {shown(name, self.dense[name])}; the nearest possible is "
            f"{share:g}%; choose that, raise max_sparsity, or let rules hit more layers"
        )


def secant(one: tuple[float, float], other: tuple[float, float], limit: float) -> float:
    """The sum over layers at which a network would take `limit`, on the line through two networks that were measured,
    each with its (sum, time); 0 if the line does not rise with the sum."""
    (a, ours), (b, theirs) = one, other
    rise = (theirs - ours) * (b - a)
    return a + (limit - ours) * (b - a) / (theirs - ours) if rise > 0 else 0.0
