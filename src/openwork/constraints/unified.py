"""Micro-structured unification: in some small blocks all weights share one magnitude, and some blocks are zero."""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from .base import Constraint, largest
from .block import Side


class Unified(Constraint):
    """Of the h x w blocks of the matrix `[out, in*kh*kw]` a share is zero, and in a further share all weights have the
    same magnitude, each its own sign. Blocks at the edges are as small as they come.

    project: zeroes the round(pruned * blocks) blocks of least energy, then unifies, of the rest, the
    round(unified * blocks) that are nearest to their mean magnitude; a weight of 0 counts as positive. Exact with
    `pruned = 0`; with both shares a heuristic, as another choice of the pruned blocks can leave better ones to unify.
    Of equal blocks the first in row-major order are taken.

    >>> Unified(shape=(1, 2), unified=0.5).project(torch.tensor([[1.0, -3.0, 4.0, 0.0]]))
    tensor([[ 2., -2.,  4.,  0.]])

    Source: Efficient micro-structured weight unification and pruning, 2021, arXiv:2106.08301.
    """

    shape: tuple[Side, Side]
    """Block height h in outputs and width w in flattened inputs, each >= 1."""
    unified: Annotated[float, Field(gt=0, le=1)]
    """Share of blocks whose weights share a magnitude, in (0, 1]."""
    pruned: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of further blocks that are zero, in [0, 1)."""

    EXACT: ClassVar[bool] = False
    TIED: ClassVar[bool] = True
    FORMAT: ClassVar[str] = "unified"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"shape": (4, 4), "unified": 1.0},
        {"shape": (2, 2), "unified": 0.5, "pruned": 0.25},
        {"shape": (1, 3), "unified": 0.75},
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.unified + self.pruned > 1:
            raise ValueError(f"unified = {self.unified:g} and pruned = {self.pruned:g} are together more than 1")
        return self

    def layout(self) -> dict[str, Any]:
        return {"block": self.shape}

    def relaxed(self, share: float) -> Self | None:
        shares = {"unified": self.unified * min(share, 1.0), "pruned": self.pruned * min(share, 1.0)}
        return self.model_copy(update=shares) if share > 0 else None

    def project(self, w: Tensor) -> Tensor:
        self.check(w.shape)
        w = w.detach()
        self.require_finite(w)
        values, there = self._blocks(w.double()), self._there(w)
        size = values.abs().sum((1, 3), keepdim=True) / there.sum((1, 3), keepdim=True)
        zero = torch.zeros_like(size, dtype=torch.bool)
        same = zero.clone()
        pruned, unified = self._counts(zero.numel())
        zero.view(-1)[_least(values.square().sum((1, 3)).flatten(), pruned)] = True
        cost = ((values.abs() - size).square() * there).sum((1, 3)).flatten()
        same.view(-1)[_least(cost.masked_fill(zero.flatten(), torch.inf), unified)] = True
        alike = torch.where(values < 0, -size, size)
        return self._matrix(torch.where(same, alike, values).masked_fill(zero, 0.0), w)

    def hold(self, w: Tensor, member: Tensor) -> Tensor:
        """`w` with the pruned and unified blocks of `member`, and its signs in these; each shares the mean of its
        weights along the signs, or 0 if that is negative."""
        own, values, there = self._blocks(member.detach()), self._blocks(w.detach().double()), self._there(w)
        signed = torch.where(own < 0, -values, values) * there
        size = (signed.sum((1, 3), keepdim=True) / there.sum((1, 3), keepdim=True)).clamp(min=0)
        alike = torch.where(own < 0, -size, size)
        zero, same = self._kinds(own, there)
        same &= there.sum((1, 3), keepdim=True) > 1  # a weight alone is free
        return self._matrix(torch.where(same, alike, values).masked_fill(zero, 0.0), w)

    def violations(self, w: Tensor) -> int:
        """Blocks that are missing among those that are zero, and among those that have one magnitude, zero or not."""
        self.check(w.shape)
        zero, same = self._kinds(self._blocks(w.detach()), self._there(w))
        pruned, unified = self._counts(zero.numel())
        return max(0, pruned - int(zero.sum())) + max(0, pruned + unified - int(same.sum()))

    def _counts(self, blocks: int) -> tuple[int, int]:
        """Blocks to prune and to unify."""
        pruned = round(self.pruned * blocks)
        return pruned, min(max(1, round(self.unified * blocks)), blocks - pruned)

    def _kinds(self, values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
        """Which blocks are zero, and in which all magnitudes are the same, zero ones included: [p, 1, q, 1]."""
        largest = values.abs().amax((1, 3), keepdim=True)
        return largest == 0, ((values.abs() == largest) | ~there).all(1, keepdim=True).all(3, keepdim=True)

    def _blocks(self, w: Tensor) -> Tensor:
        """The matrix by blocks, [p, h, q, w], with zeros beyond its edges."""
        (h, v), matrix = self.shape, w.reshape(w.shape[0], -1)
        padded = functional.pad(matrix, (0, -matrix.shape[1] % v, 0, -matrix.shape[0] % h))
        return padded.reshape(padded.shape[0] // h, h, padded.shape[1] // v, v)

    def _there(self, w: Tensor) -> Tensor:
        """Which weights of `_blocks` the matrix has."""
        return self._blocks(torch.ones_like(w, dtype=torch.uint8)) > 0

    def _matrix(self, blocks: Tensor, like: Tensor) -> Tensor:
        p, h, q, v = blocks.shape
        matrix = blocks.reshape(p * h, q * v)[: like.shape[0], : like[0].numel()]
        return matrix.reshape(like.shape).to(like.dtype)


def _least(scores: Tensor, count: int) -> Tensor:
    """Flags of the `count` smallest of `scores`; of equal ones those of the lowest index."""
    return largest(-scores[None], count)[0] if count else torch.zeros_like(scores, dtype=torch.bool)
