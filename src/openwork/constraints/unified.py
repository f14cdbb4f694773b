"""Micro-structured unification: in some small blocks all weights share one magnitude, and some blocks are zero."""

import itertools
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from .base import Constraint, Holder, largest
from .block import Side

STRIP = 1 << 17
"""Weights that are looked at at a time, so that intermediate results stay in the cache."""


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

    @property
    def shares(self) -> bool:
        return True

    def layout(self) -> dict[str, Any]:
        return {"block": self.shape}

    def relaxed(self, share: float) -> Self | None:
        shares = {"unified": self.unified * min(share, 1.0), "pruned": self.pruned * min(share, 1.0)}
        return self.model_copy(update=shares) if share > 0 else None

    def project(self, w: Tensor) -> Tensor:
        self.check(w.shape)
        w = w.detach()
        self.require_finite(w)
        cells, there = self._cells(w), self._there(w)
        size, cost, energy = _moments(cells, there)
        pruned, unified = self._counts(len(size))
        zero = _least(energy, pruned)
        same = _least(cost.masked_fill(zero, torch.inf), unified)
        return self._weights(self._alike(cells, size, same & ~zero).masked_fill_(zero, 0.0), w.shape)

    def holder(self, member: Tensor) -> Holder:
        """`w` with the pruned and unified blocks of `member`, and its signs in these; each shares the mean of its
        weights along the signs, or 0 if that is negative."""
        own, there = self._cells(member.detach()), self._there(member)
        zero, same = _kinds(own, there)
        count = _count(own, there)
        same &= count > 1  # a weight alone is free
        along = partial(self._along, torch.where(own < 0, -1.0, 1.0).to(own.dtype), zero, same, count)
        return Holder(partial(along, least=0.0), along)

    def _along(
        self, signs: Tensor, zero: Tensor, same: Tensor, count: Tensor, w: Tensor, *, least: float | None = None
    ) -> Tensor:
        """`w` with the blocks `zero` at 0, and in the blocks `same` the mean along `signs`, at least `least`."""
        cells = self._cells(w.detach())
        size = (cells * signs).sum(0, dtype=torch.float64) / count
        size = size if least is None else size.clamp_(min=least)
        # Adding 0 makes every zero the plain one, which has the sign of positive numbers.
        tied = torch.where(same, signs * size.to(cells.dtype) + 0.0, cells)
        return self._weights(tied.masked_fill_(zero, 0.0), w.shape)

    def violations(self, w: Tensor) -> int:
        """Blocks that are missing among those that are zero, and among those that have one magnitude, zero or not."""
        self.check(w.shape)
        zero, same = _kinds(self._cells(w.detach()), self._there(w))
        pruned, unified = self._counts(len(zero))
        return max(0, pruned - int(zero.sum())) + max(0, pruned + unified - int(same.sum()))

    def _counts(self, blocks: int) -> tuple[int, int]:
        """Blocks to prune and to unify."""
        pruned = round(self.pruned * blocks)
        return pruned, min(max(1, round(self.unified * blocks)), blocks - pruned)

    def _cells(self, w: Tensor) -> Tensor:
        """The weights of each block, [h * w, blocks], with zeros beyond the edges of the matrix: sums over a block are
        sums of long rows."""
        (h, v), matrix = self.shape, w.reshape(w.shape[0], -1)
        border = (0, -matrix.shape[1] % v, 0, -matrix.shape[0] % h)
        padded = functional.pad(matrix, border) if any(border) else matrix
        blocks = padded.reshape(len(padded) // h, h, padded.shape[1] // v, v)
        return blocks.permute(1, 3, 0, 2).reshape(h * v, -1).contiguous()

    def _there(self, w: Tensor) -> Tensor | None:
        """Which weights of `_cells` the matrix has; None: all."""
        whole = w.shape[0] % self.shape[0] == 0 and w[0].numel() % self.shape[1] == 0
        return None if whole else self._cells(torch.ones_like(w, dtype=torch.bool))

    @staticmethod
    def _alike(cells: Tensor, size: Tensor, same: Tensor) -> Tensor:
        """`cells` with the blocks `same` at magnitude `size`, each weight with its own sign."""
        # Adding 0 makes every zero the plain one, which has the sign of positive numbers.
        return torch.where(same, size.to(cells.dtype).copysign(cells + 0.0), cells)

    def _weights(self, cells: Tensor, shape: torch.Size) -> Tensor:
        """The way back from `_cells`."""
        (h, v), width = self.shape, shape[1:].numel()
        rows = cells.view(h, v, -(-shape[0] // h), -1).permute(2, 0, 3, 1).flatten(2).flatten(0, 1)
        return rows[: shape[0], :width].reshape(shape)


def _moments(cells: Tensor, there: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of each block the mean magnitude, the sum of squared deviations from it, and the energy, in float64."""
    found = []
    wide = max(1, STRIP // len(cells))
    flags = itertools.repeat(None) if there is None else torch.split(there, wide, 1)
    for some in zip(torch.split(cells, wide, 1), flags, strict=False):
        values = some[0].to(torch.float64, copy=True).abs_()
        energy = values.square().sum(0)
        size = values.sum(0) / _count(*some)
        deviation = values.sub_(size).square_()
        found.append((size, (deviation if some[1] is None else deviation.mul_(some[1])).sum(0), energy))
    return tuple(torch.cat(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


def _kinds(cells: Tensor, there: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which blocks are zero, and in which all magnitudes are the same, zero ones included."""
    size = cells.abs()
    largest = size.amax(0)
    least = (size if there is None else size.masked_fill(~there, torch.inf)).amin(0)
    return largest == 0, least == largest


def _count(cells: Tensor, there: Tensor | None) -> Tensor:
    """How many weights each block has."""
    return torch.tensor(len(cells), device=cells.device) if there is None else there.sum(0)


def _least(scores: Tensor, count: int) -> Tensor:
    """Flags of the `count` smallest of `scores`; of equal ones those of the lowest index."""
    return largest(-scores[None], count)[0] if count else torch.zeros_like(scores, dtype=torch.bool)
