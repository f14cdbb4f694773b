"""Reweighted regularization: a penalty on groups that spares large ones, by factors taken anew a few times."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ..constraints.base import Constraint, Share
from ._groups import centers, deviations, held_back, vanished
from ._known import known
from .base import CurrentLoss, Solver, State

STEP, LEAST, MOST = 4.0, 1e-12, 1e6
"""By what the strength goes up or down before it has been on both sides of what the target needs; and its limits."""


class Reweighted(Solver):
    """Training steps on  f(W) + strength * sum_g P_g ||W_g||^power  with  P_g = 1 / (||W_g||^power + eps),  which is
    taken anew at the start and at each of `times` updates: small groups are pushed to zero, large ones are left alone.
    It descends on  f(W) + strength * sum_g log(||W_g||^power + eps),  whose slope P is.

    Groups are those of the constraint: single weights, kernels, filters, channels, columns, blocks, rows and columns of
    blocks. The ratio is an outcome here (`ratio` in the metrics: the share of weights in groups that are nearly gone);
    the cut at the end is the constraint's own all the same, so that its sparsity holds exactly. What is nearly gone
    costs nothing to cut: choose `strength` so that `ratio` comes near the sparsity, or have it found with `target`.
    Where a set ties weights to each other, their distance to the nearest member takes the place of W, weight by weight.

    With `target`, the strength is bisected while training goes on, since what the task's loss holds against the penalty
    is only known by training: every `every` updates it rises where the ratio is below the target and falls where it is
    above, by a factor of 4 until it has been on both sides, then to the geometric mean of the two nearest. The ratio
    comes as near as one more group is.

    >>> solver = Reweighted(strength=1e-4, times=4)
    >>> solver = Reweighted(power=1, bounded=True)

    Source: Zhang et al. 2020, arXiv:2004.05531 (groups, dynamic regularization); of blocks of Transformers: Li et al.
    2020, arXiv:2009.08065; Candes et al. 2008, arXiv:0711.1612 (reweighted l1).
    """

    strength: Annotated[float, Field(ge=0)] = 1e-4
    """Factor on the penalty, in units of loss: no group can cost more than this. 0: plain training."""
    power: Literal[1, 2] = 2
    """Of the norm: 1 is the reweighted group lasso, of single weights the reweighted l1 norm; 2 is smooth."""
    eps: Annotated[float, Field(gt=0)] = 1e-3
    """What keeps P finite, in units of ||W_g||^power: groups far above it count as large."""
    times: Annotated[int, Field(ge=0)] = 4
    """How often P is taken anew after the start; a few times are enough, since small groups seldom come back."""
    every: Annotated[int, Field(ge=1)] = 1
    """Updates between two such times."""
    bounded: bool = False
    """Penalize only the groups that the constraint would cut as weights are when P is taken, so that the sparsity asked
    for bounds the penalty."""
    target: Share | None = None
    """Ratio for which the strength is bisected, in (0, 1); None: the strength stays."""
    near: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    """Largest norm of a group that is nearly gone, as a share of the root mean square of its layer's, in (0, 1)."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"strength": 0.1},
        {"strength": 0.1, "power": 1},
        {"strength": 0.1, "power": 1, "bounded": True, "target": 0.5},
        {"strength": 0.1, "bounded": True, "times": 1, "every": 2},
    )
    METRICS: ClassVar[tuple[str, ...]] = ("strength", "ratio")
    REMEDY: ClassVar[tuple[str, ...]] = ("strength",)

    @torch.no_grad()
    def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> State:
        return self._weighed(weights, constraints, {"updates": 0, "strength": self.strength})

    def penalty(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State) -> Tensor:
        """strength * sum_g P_g ||W_g||^power; its gradient at a group of zeros is zero."""
        strength, p = state.numbers["strength"], list(state.tensors["p"])
        if not weights or strength == 0:
            return torch.zeros((), device=weights[0].device if weights else None)
        with torch.no_grad():
            values = deviations(weights, state)
            slopes = list(torch._foreach_mul(values, p))
            if self.power == 1:
                for slope, value, c in zip(slopes, values, constraints, strict=True):
                    slope.div_(c.group_norms(value).clamp(min=torch.finfo(value.dtype).tiny))
            # Summed over a group, P_g W^2 / ||W_g|| is P_g ||W_g||; no summand is negative, so the 1-norm is the sum.
            total = torch.stack(torch._foreach_norm(torch._foreach_mul(values, slopes), 1)).sum()
        return known(strength * total, self.power * strength, slopes, weights)

    @torch.no_grad()
    def update(
        self,
        weights: Sequence[Tensor],
        constraints: Sequence[Constraint],
        state: State,
        loss: CurrentLoss | None = None,
    ) -> State:
        updates = int(state.numbers["updates"]) + 1
        numbers = {**state.numbers, "updates": updates, "ratio": vanished(weights, constraints, state, self.near)}
        if updates % self.every == 0:
            if self.target is not None:
                self._bisect(numbers, self.target)
            if updates <= self.times * self.every:
                return self._weighed(weights, constraints, numbers)
        return State(tensors=state.tensors, numbers=numbers)

    def _weighed(
        self, weights: Sequence[Tensor], constraints: Sequence[Constraint], numbers: dict[str, float]
    ) -> State:
        """The state with P of the weights as they are."""
        tensors = centers(weights, constraints)
        values = deviations(weights, State(tensors=tensors))
        p = tuple(
            held_back(1 / (c.group_norms(value) ** self.power + self.eps), w, c, self.bounded)
            for value, w, c in zip(values, weights, constraints, strict=True)
        )
        return State(tensors={"p": p, **tensors}, numbers=numbers)

    @staticmethod
    def _bisect(numbers: dict[str, float], target: float) -> None:
        """The next strength; `low` and `high` are the nearest ones that were too weak and strong enough."""
        strength = numbers["strength"]
        numbers["low" if numbers["ratio"] < target else "high"] = strength
        low, high = numbers.get("low", strength / STEP**2), numbers.get("high", strength * STEP**2)
        numbers["strength"] = min(max((low * high) ** 0.5, LEAST), MOST)
