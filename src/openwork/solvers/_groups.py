"""What methods share that make groups of weights vanish: from where groups are measured, and which may go."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..constraints.base import Constraint
from .base import State


def centers(weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> dict[str, tuple[Tensor, ...]]:
    """From where deviations are measured: zero, but for sets that tie weights to each other the nearest member. As
    tensors of a `State`, none where all are zero."""
    if not any(c.tied for c in constraints):
        return {}
    pairs = zip(weights, constraints, strict=True)
    return {"z": tuple(c.project(w) if c.tied else torch.zeros_like(w, requires_grad=False) for w, c in pairs)}


def deviations(weights: Sequence[Tensor], state: State) -> list[Tensor]:
    """What is to vanish: the weights themselves, or how far they are from the centers."""
    if "z" in state.tensors:
        return list(torch._foreach_sub([w.detach() for w in weights], list(state.tensors["z"])))
    return [w.detach() for w in weights]


def held_back(factors: Tensor, w: Tensor, constraint: Constraint, bounded: bool) -> Tensor:
    """`factors`, one for each weight of `w`, as a tensor of its own; if `bounded`, zero for the groups that the
    constraint keeps."""
    found = torch.empty_like(w, requires_grad=False).copy_(factors)
    return found.masked_fill_(constraint.mask(w), 0.0) if bounded and not constraint.tied else found


def vanished(weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State, near: float) -> float:
    """The share of weights whose group deviates by at most `near` times the root mean square norm of its layer's."""
    gone = total = 0
    for w, deviation, c in zip(weights, deviations(weights, state), constraints, strict=True):
        scale = c.group_norms(w).square().mean().sqrt()
        gone += int((c.group_norms(deviation) <= near * scale).sum())
        total += w.numel()
    return gone / total if total else 0.0
