"""Magnitude pruning: cut what is small, at once or a little more at each update, and keep training what is left."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..constraints.base import Constraint
from .base import CurrentLoss, Solver, State


class Magnitude(Solver):
    """W_i <- project(W_i), and the mask W_i != 0 holds from then on. Of sets that tie weights to each other it is the
    zeros that hold meanwhile; the ties come with the cut at the end.

    One-shot: the whole cut before the first step. Gradual: at update t of `ramp` the weights are projected onto the set
    whose sparsity is  final * (1 - (1 - start) (1 - t/ramp)^3),  so most is cut while the network has most to spare.

    >>> solver = Magnitude(gradual=True, ramp=8)

    Source: Han et al. 2015, arXiv:1506.02626 (one-shot); Zhu and Gupta 2017, arXiv:1710.01878 (gradual, cubic).
    """

    gradual: bool = False
    """Cut over `ramp` updates instead of at once."""
    ramp: Annotated[int, Field(ge=1)] = 8
    """Updates from the start to the final sparsity; without effect unless gradual."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Sparsity before the first update, as a share of the final one, in [0, 1)."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"gradual": True, "ramp": 3})
    METRICS: ClassVar[tuple[str, ...]] = ("share",)

    def share(self, updates: int) -> float:
        """Share of the final sparsity after so many updates: 1 when one-shot, else the cubic ramp."""
        if not self.gradual or updates >= self.ramp:
            return 1.0
        return 1.0 - (1.0 - self.start) * (1.0 - updates / self.ramp) ** 3

    def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> State:
        return self._cut(weights, constraints, 0)

    def penalty(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State) -> Tensor:
        """Zero: magnitude pruning leaves the loss alone."""
        return torch.zeros((), device=weights[0].device if weights else None)

    def update(
        self,
        weights: Sequence[Tensor],
        constraints: Sequence[Constraint],
        state: State,
        loss: CurrentLoss | None = None,
    ) -> State:
        return self._cut(weights, constraints, int(state.numbers["updates"]) + 1)

    def masks(self, state: State) -> tuple[Tensor, ...]:
        return state.tensors["mask"]

    @torch.no_grad()
    def _cut(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], updates: int) -> State:
        share = self.share(updates)
        sets = [c.relaxed(share) for c in constraints]
        masks = tuple(
            torch.ones_like(w, dtype=torch.bool) if s is None else s.mask(w) for w, s in zip(weights, sets, strict=True)
        )
        return State(tensors={"mask": masks}, numbers={"updates": updates, "share": share})
