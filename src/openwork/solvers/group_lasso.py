"""Group lasso by proximal steps: after every step of the optimizer groups become shorter, and the shortest are zero."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..constraints.base import Constraint
from ..errors import UsageError
from ._groups import centers, held_back
from .base import CurrentLoss, Solver, State


class GroupLasso(Solver):
    """min f(W) + strength * sum_g sqrt(|g|) ||W_g||  by proximal gradient descent: after each step of the optimizer,
    with learning rate t,

        W_g <- W_g * max(0, 1 - t * strength * sqrt(|g|) / ||W_g||)

    which is the exact proximal operator, since groups do not overlap. Unlike a penalty in the loss, it makes groups
    exactly zero. Groups are those of the constraint; |g| is how many weights a group has, so that large and small
    groups are held to the same standard. The cut at the end is the constraint's own, so that its sparsity holds
    exactly; the metric `ratio` is the share of weights that are zero already.

    Where a set ties weights to each other, weights move to the nearest member, each by itself. The learning rate comes
    from the optimizer given to `Shaper`, or to `Shaper.step`; steps of Adam, which have scales of their own, are not
    those of the formula, though the operator is.

    >>> import torch
    >>> from openwork import Filter
    >>> solver, w, rows = GroupLasso(strength=1.0), torch.tensor([[3.0, 4.0], [0.0, 0.5]]), [Filter(sparsity=0.5)]
    >>> solver.after_step([w], rows, solver.init([w], rows), rate=0.5 ** 0.5)
    >>> w
    tensor([[2.4000, 3.2000],
            [0.0000, 0.0000]])

    Source: Yuan and Lin 2006 (J. R. Stat. Soc. B 68), the group lasso; Parikh and Boyd 2014, Proximal Algorithms,
    section 6.5.1; of networks: Wen et al. 2016, arXiv:1608.03665.
    """

    strength: Annotated[float, Field(ge=0)] = 1e-4
    """Factor on the norms, in units of loss per weight. 0: plain training."""
    bounded: bool = False
    """Shorten only the groups that the constraint would cut as weights are at each update, so that the sparsity asked
    for bounds the penalty."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"strength": 0.01}, {"strength": 0.01, "bounded": True})
    METRICS: ClassVar[tuple[str, ...]] = ("ratio",)
    REMEDY: ClassVar[tuple[str, ...]] = ("strength",)

    @torch.no_grad()
    def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> State:
        # Of ones, the norm of a group is the root of its size.
        roots = tuple(
            held_back(c.group_norms(torch.ones_like(w)), w, c, self.bounded)
            for w, c in zip(weights, constraints, strict=True)
        )
        return State(tensors={"root": roots, **centers(weights, constraints)}, numbers={"ratio": _zeros(weights)})

    def penalty(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State) -> Tensor:
        """Zero: the work is done after the step."""
        return torch.zeros((), device=weights[0].device if weights else None)

    @torch.no_grad()
    def after_step(
        self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State, rate: float | None
    ) -> None:
        if rate is None:
            raise UsageError("GroupLasso needs the learning rate: give Shaper the optimizer, or step() the rate")
        if self.strength == 0:
            return
        targets = state.tensors.get("z")
        for at, (w, c, root) in enumerate(zip(weights, constraints, state.tensors["root"], strict=True)):
            # One after the other, since a weight under several constraints comes once with each.
            value = w.detach() if targets is None else w.detach() - targets[at]
            norms = c.group_norms(value)
            left = (norms - rate * self.strength * root).clamp_(min=0.0)
            shrunk = left.div_(norms.clamp(min=torch.finfo(w.dtype).tiny)).mul_(value)
            w.copy_(shrunk if targets is None else shrunk.add_(targets[at]))

    def update(
        self,
        weights: Sequence[Tensor],
        constraints: Sequence[Constraint],
        state: State,
        loss: CurrentLoss | None = None,
    ) -> State:
        return self.init(weights, constraints)


def _zeros(weights: Sequence[Tensor]) -> float:
    total = sum(w.numel() for w in weights)
    return 1 - sum(int(torch.count_nonzero(w)) for w in weights) / total if total else 0.0
