"""What layers lose and cost at each sparsity: scanned, counted, timed, and put into tables."""

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

from ..constraints._padded import Padded
from ..constraints.base import Constraint, Rated
from ..data.base import Data
from ..errors import OpenworkError, ShapeError
from ..recipes.budget import Budget
from ..recipes.match import Match, weights
from ..recipes.recipe import Rule
from . import tables
from .clock import Clock
from .costs import recorded, stored, unit
from .figures import Figures
from .sensitivity import Scan, distance, replaced
from .tables import LayerTable, Option


@dataclass
class Measurements:
    """Of one model, as its weights are. Each is made once and kept in `figures`."""

    model: nn.Module
    """A copy in evaluation mode, whose layers are cut one at a time and restored."""
    budget: Budget
    data: Data | None
    inputs: tuple[Tensor, ...]
    figures: Figures
    digest: str
    """Digest of the weights."""
    threads: int | None
    given_clock: Clock | None

    def table(self, m: Match, rule: Rule) -> LayerTable:
        """The layer dense and at each sparsity that may be picked; at its own, where its rule fixes it."""
        assert m.constraint is not None
        if not rule.open:
            member = member_of(m.weight, m.constraint)
            zeros = 1 - int(member.count_nonzero()) / member.numel()
            option = Option(getattr(m.constraint, "sparsity", zeros), 0.0, self._costs(m, member, m.constraint))
            return LayerTable(m.name, (option,))
        options = [Option(0.0, 0.0, self.dense(m), self._harm(m)[1])]
        for sparsity in self._sparsities(rule):
            constraint = at(m.constraint, sparsity)
            try:
                member = member_of(m.weight, constraint)
            except ShapeError:  # some patterns have no budget for every sparsity
                continue
            loss, accuracy = self._harm(m, constraint, member)
            if math.isfinite(loss):
                options.append(Option(sparsity, loss, self._costs(m, member, constraint), accuracy))
        return tables.smoothed(LayerTable(m.name, tuple(options)))

    def _sparsities(self, rule: Rule) -> list[float]:
        low, high = rule.min_sparsity or 0.0, rule.max_sparsity or 1.0
        return sorted({*(r for r in self.budget.ratios if low <= r <= high), *(b for b in (low, high) if b > 0)})

    def _costs(self, m: Match, member: Tensor, constraint: Constraint) -> dict[str, float]:
        found = {
            "bytes": float(stored(member, constraint)[1]),
            "macs": float(int(member.count_nonzero()) * self._positions[m.name]),
        }
        return found | ({"latency": self._latency(m, constraint, member)} if self.budget.latency else {})

    def dense(self, m: Match) -> dict[str, float]:
        """Costs of the dense layer. Time: 0 where it cannot be measured, which counts the layer among the rest."""
        found = self.counted(m)
        return found | ({"latency": self._latency(m)} if self.budget.latency else {})

    def counted(self, m: Match) -> dict[str, float]:
        """Costs of the dense layer that need no clock."""
        return {"bytes": 4.0 * m.weight.numel(), "macs": float(m.weight.numel() * self._positions[m.name])}

    def network(self, matches: list[Match]) -> dict[str, float]:
        """What the whole dense network spends of each cost that has a limit."""
        found = {
            "bytes": float(sum({id(m.weight): 4 * m.weight.numel() for m in matches}.values())),
            "macs": float(sum(m.weight.numel() * self._positions[m.name] for m in matches)),
        }
        if self.budget.latency:
            found["latency"] = self.clock.network({})
        return {name: found[name] for name in self.budget.limited}

    # Below, `member` is the layer's projection onto `constraint`; without both the layer is dense.

    def _harm(
        self, m: Match, constraint: Constraint | None = None, member: Tensor | None = None
    ) -> tuple[float, float | None]:
        """What the network loses if this layer alone is so, beyond what it loses dense, and its accuracy."""
        if self.budget.scan == "weights":
            return 0.0 if member is None else distance(m.weight, member), None
        loss, accuracy = self._scanned(m, constraint, member)
        return max(0.0, loss - self._scanned(m)[0]) if member is not None else 0.0, accuracy

    def _scanned(
        self, m: Match, constraint: Constraint | None = None, member: Tensor | None = None
    ) -> tuple[float, float]:
        assert self.data is not None
        which = "dense" if constraint is None else f"{m.name} in {constraint}"
        key = f"loss of {self.budget.examples} of {self.data.name}, weights {self.digest[:16]}: {which}"

        def measure() -> tuple[float, float]:
            if member is None:
                return self._scan.measure()
            with replaced(m.weight, member):
                return self._scan.measure()

        loss, accuracy = self.figures.get(key, measure)
        return float(loss), float(accuracy)

    def _latency(self, m: Match, constraint: Constraint | None = None, member: Tensor | None = None) -> float:
        """Microseconds; 0 if the layer cannot be timed dense, and as dense if it cannot be so sparse."""
        found = self.timed(m, constraint, member)
        if isinstance(found, str):
            return 0.0 if constraint is None else self._latency(m)
        return float(found)

    def timed(self, m: Match, constraint: Constraint | None = None, member: Tensor | None = None) -> float | str:
        """Microseconds, or why there are none. Equal layers under equal constraints share the figure."""

        def measure() -> float | str:
            try:
                return self.clock.layer(m.name, member)
            except OpenworkError as error:
                return str(error)

        try:
            key = f"{self.clock.key(m.name)}, {'dense' if constraint is None else constraint}"
        except OpenworkError as error:
            return str(error)
        found: float | str = self.figures.get(key, measure)
        return found

    @cached_property
    def _scan(self) -> Scan:
        assert self.data is not None
        return Scan(self.model, self.data, self.budget.examples)

    @cached_property
    def clock(self) -> Clock:
        """The one that was given, else the engine's."""
        if self.given_clock is not None:
            return self.given_clock
        from .engine_clock import EngineClock

        return EngineClock(self.model, self.inputs, self.threads)

    @cached_property
    def _positions(self) -> dict[str, int]:
        device = next(self.model.parameters()).device
        calls = recorded(self.model, tuple(i.to(device) for i in self.inputs))
        return {
            name: sum(call.positions for call in calls[unit(self.model, item)])
            for name, item in weights(self.model).items()
        }


def at(constraint: Constraint, sparsity: float) -> Constraint:
    """The same pattern with another sparsity."""
    if isinstance(constraint, Padded):
        return constraint.model_copy(update={"inner": at(constraint.inner, sparsity)})
    assert isinstance(constraint, Rated), "rules that are open have a sparsity"
    return constraint.at(sparsity)


def member_of(weight: Tensor, constraint: Constraint) -> Tensor:
    """The projection, of a layer by itself."""
    weight = weight.detach()
    return constraint.fitted([weight])[0].project(weight)
