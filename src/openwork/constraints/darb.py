"""Density-adaptive regular blocks: one weight stays in every run of b inputs, and rows with more strong weights have
shorter runs."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ..errors import ShapeError
from ._rows import rows, weight
from .base import Rated, largest

Power = Annotated[int, Field(ge=1, le=1024)]


class DARB(Rated):
    """Row i of the matrix `[out, kh*kw*in]` has at most one non-zero in each run of b_i columns, b_i a power of two.

    All rows together have at most round((1 - sparsity) * out * in*kh*kw) runs, or one in `largest` columns if that is
    more; the last run of a row may be shorter. Sizes follow from how many weights each row has among the strongest of
    the matrix: twice as many, half the size. `fitted` settles them; without it every weight has its own.

    project: argmin_Z ||W - Z||_F  s.t.  the definition above. For settled sizes it is exact: the largest weight of each
    run stays, of equal ones the leftmost. The sizes are a heuristic. With one size for all rows, called block-max
    weight masking, the set is `NM(n=1, m=b)`.

    >>> w = torch.tensor([[1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 4.0, 3.0]])
    >>> DARB(sparsity=0.5, smallest=2, log2_sizes=(1, 2)).project(w)
    tensor([[0., 2., 4., 0.],
            [0., 0., 4., 0.]])

    Source: Ren et al. 2020, arXiv:1911.08020.
    """

    smallest: Power = 4
    """Shortest run, a power of two."""
    largest: Power = 64
    """Longest run, a power of two."""
    log2_sizes: tuple[Annotated[int, Field(ge=0, le=10)], ...] | None = None
    """Binary logarithm of each row's b; None: they follow from the weight."""

    EXACT: ClassVar[bool] = False
    FORMAT: ClassVar[str] = "darb"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"sparsity": 0.75, "smallest": 2, "largest": 8},
        {"sparsity": 0.9},
    )

    @field_validator("smallest", "largest")
    @classmethod
    def _power_of_two(cls, size: int) -> int:
        if size & (size - 1):
            raise ValueError(f"{size} is not a power of two")
        return size

    @model_validator(mode="after")
    def _sizes_are_in_order(self) -> Self:
        if self.smallest > self.largest:
            raise ValueError(f"smallest = {self.smallest} is above largest = {self.largest}")
        return self

    def layout(self) -> dict[str, Any]:
        return {"largest": self.largest}

    def relaxed(self, share: float) -> Self | None:
        found = super().relaxed(share)
        if found is None or share >= 1:
            return found
        sizes = None if self.log2_sizes is None else tuple(int(size * share) for size in self.log2_sizes)
        return found.model_copy(update={"smallest": 1, "log2_sizes": sizes})

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        if self.log2_sizes is not None and len(self.log2_sizes) != shape[0]:
            raise ShapeError(
                f"darb: log2_sizes is of {len(self.log2_sizes)} rows, weight {'x'.join(map(str, shape))} has "
                f"{shape[0]}; leave it out to have sizes found, or give one for each layer"
            )

    def fitted(self, weights: Sequence[Tensor]) -> tuple[Self, ...]:
        if self.log2_sizes is not None:
            return (self,) * len(weights)
        return tuple(self.model_copy(update={"log2_sizes": tuple(self._sizes(w).tolist())}) for w in weights)

    def mask(self, w: Tensor) -> Tensor:
        w = w.detach()
        self.check(w.shape)
        self.require_finite(w)
        if self.log2_sizes is None and self.violations(w) == 0:
            # What is left of a pruned weight says nothing about the sizes that it was pruned with.
            return w != 0
        strength = rows(w).abs()
        sizes = self._sizes(w)
        keep = torch.zeros_like(strength, dtype=torch.bool)
        for size in set(sizes.tolist()):
            some = sizes == size
            runs = _runs(strength[some], 1 << size, -1)
            kept = torch.zeros_like(runs, dtype=torch.bool).scatter(2, runs.argmax(2, keepdim=True), True)
            keep[some] = kept.flatten(1)[:, : strength.shape[1]]
        return weight(keep, w.shape)

    def violations(self, w: Tensor) -> int:
        """Non-zeros beyond one in a run; where sizes are not settled, of the smallest runs, and runs beyond the allowed
        count if every row has the longest that it can."""
        self.check(w.shape)
        taken = rows(w.detach() != 0)
        wide, powers = taken.shape[1], range(self.smallest.bit_length() - 1, self.largest.bit_length())
        if self.log2_sizes is not None:
            return sum(
                int((_runs(taken[row : row + 1], 1 << size, 0).sum(2) - 1).clamp(min=0).sum())
                for row, size in enumerate(self.log2_sizes)
            )
        excess = {size: (_runs(taken, 1 << size, 0).sum(2) - 1).clamp(min=0).sum(1) for size in powers}
        count = torch.full((len(taken),), -(-wide // self.smallest), device=w.device)
        for size in powers:
            count[excess[size] == 0] = -(-wide // (1 << size))
        return int(excess[powers[0]].sum()) + max(0, int(count.sum()) - self._allowed(w.shape))

    def _allowed(self, shape: torch.Size) -> int:
        """Runs of all rows."""
        return max(self.budget(shape.numel()), shape[0] * -(-shape[1:].numel() // self.largest))

    def _sizes(self, w: Tensor) -> Tensor:
        """log2 b of each row."""
        if self.log2_sizes is not None:
            return torch.tensor(self.log2_sizes, device=w.device)
        self.check(w.shape)
        self.require_finite(w)
        strength = rows(w.detach()).abs().float()
        wide = strength.shape[1]
        dense = largest(strength.reshape(1, -1), self.budget(w.numel())).view(strength.shape).sum(1).tolist()
        low, high = self.smallest.bit_length() - 1, self.largest.bit_length() - 1

        def sizes(scale: int) -> list[int]:
            """b = scale / count of strong weights, rounded down to an allowed power of two."""
            return [min(max((scale // n).bit_length() - 1, low), high) if n else high for n in dense]

        # The smallest scale with few enough runs: sizes change only where scale / count is a power of two.
        scales = sorted({n << size for n in dense for size in range(low, high + 1) if n} | {max(dense) << high})
        allowed = self._allowed(w.shape)
        first, last = 0, len(scales) - 1
        while first < last:
            middle = (first + last) // 2
            fits = sum(-(-wide // (1 << size)) for size in sizes(scales[middle])) <= allowed
            first, last = (first, middle) if fits else (middle + 1, last)
        return torch.tensor(sizes(scales[first]), device=w.device)


def _runs(matrix: Tensor, size: int, filler: int) -> Tensor:
    """[rows, columns] -> [rows, runs, size], the last run completed."""
    padded = torch.nn.functional.pad(matrix.float(), (0, -matrix.shape[1] % size), value=filler)
    return padded.view(len(matrix), -1, size)
