"""Gather-scatter sparsity: non-zeros in groups that touch every memory bank once, so that a gather never waits."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..engine import _native
from ..errors import ShapeError
from ._rows import rows, weight
from .base import Rated, ascending, energies, largest


class GatherScatter(Rated):
    """Non-zeros come in groups of B = `banks`: one for each bank, which is the input channel mod B, k for each row.

    B / k consecutive rows are a bundle. A bundle with g groups has at most g * k non-zeros in a row and g in a bank;
    all bundles together have round((1 - sparsity) * out * in*kh*kw / B) groups, at least one. k = B is called
    horizontal (a row is a bundle), k = 1 vertical (a group has one weight for each of B rows), all between hybrid. With
    `scatter` the bundles are of rows in another order, found by `fitted`: rows with many strong weights together.

    project: argmin_Z ||W - Z||_F  s.t.  the definition above. For k = B it is exact: of each bank the largest are taken
    in turn, and the rows share the groups by what each brings. Otherwise heuristic: a group takes the largest weight
    that is left for a free bank and a row of fewer than k, until it is full. Channels are innermost: column
    (y * kw + x) * in + channel. Raises ShapeError if B / k does not divide `out` or B does not divide `in`.

    >>> w = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 1.0, 0.0, 2.0]])
    >>> GatherScatter(banks=2, per_row=2, sparsity=0.5).project(w)
    tensor([[0., 0., 3., 4.],
            [5., 0., 0., 2.]])

    Source: Lin et al. 2021, arXiv:2112.10898.
    """

    banks: Annotated[int, Field(ge=2, le=64)] = 8
    """Memory banks B, the weights of a group, 2..64."""
    per_row: Annotated[int, Field(ge=1)] = 8
    """Weights of a group in one row, a divisor of `banks`."""
    scatter: bool = False
    """Whether rows are bundled in an order that `fitted` finds."""
    order: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Of `scatter`: the row at each place; None: natural order, until `fitted` finds a better one."""

    EXACT: ClassVar[bool] = False
    FORMAT: ClassVar[str] = "gs"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"banks": 4, "per_row": 4, "sparsity": 0.5},
        {"banks": 4, "per_row": 1, "sparsity": 0.75},
        {"banks": 4, "per_row": 2, "sparsity": 0.6, "scatter": True},
    )

    @model_validator(mode="after")
    def _groups_have_whole_rows(self) -> Self:
        if self.banks % self.per_row:
            raise ValueError(f"per_row = {self.per_row} does not divide banks = {self.banks}; choose a divisor")
        if self.order is not None and not self.scatter:
            raise ValueError("an order of rows is of use with scatter only; set scatter, or leave order out")
        if self.order is not None and sorted(self.order) != list(range(len(self.order))):
            raise ValueError(f"order of {len(self.order)} rows does not name each of 0..{len(self.order) - 1} once")
        return self

    def layout(self) -> dict[str, Any]:
        return {"banks": self.banks, "per_row": self.per_row, "order": self.order or ()}

    def granule(self) -> tuple[int, int]:
        return (self.banks // self.per_row, 1)

    def channels(self) -> int:
        return self.banks

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        if self.order is not None and len(self.order) != shape[0]:
            raise ShapeError(
                f"gather_scatter: order is of {len(self.order)} rows, weight {'x'.join(map(str, shape))} has "
                f"{shape[0]}; leave order out to have it found, or give one for each layer"
            )

    def fitted(self, weights: Sequence[Tensor]) -> tuple[Self, ...]:
        if not self.scatter or self.order is not None:
            return (self,) * len(weights)
        return tuple(self.model_copy(update={"order": self._found(w)}) for w in weights)

    def mask(self, w: Tensor) -> Tensor:
        w = w.detach()
        self.require_finite(w)
        self.check(w.shape)
        budget = self._budget(w.shape)
        # A weight with more non-zeros than the groups have places is no member: no need to look at its groups.
        if int(w.count_nonzero()) <= budget * self.banks and self.violations(w) == 0:
            # Groups chosen anew, one after the other, need not find the fewest that hold a member.
            return w != 0
        matrix = self._ordered(w)
        size = matrix.abs().to(torch.promote_types(w.dtype, torch.float32))
        # [bundles, rows of a bundle, banks, columns of a bank]
        by_bank = size.reshape(len(size), -1, self.banks).movedim(1, 2)
        lists = by_bank.reshape(-1, self.granule()[0], *by_bank.shape[1:]).contiguous()
        # Magnitudes are ordered as energies are, and sort faster.
        ranked = ascending(lists).flip(-1)
        count = (self._horizontal if self.per_row == self.banks else self._bundled)(ranked, budget)
        kept = _firsts(lists, ranked, count).movedim(3, 2).reshape(matrix.shape)
        if self.order is not None:
            kept = torch.zeros_like(kept).index_copy(0, torch.tensor(self.order, device=w.device), kept)
        return weight(kept, w.shape)

    def violations(self, w: Tensor) -> int:
        """Groups that the bundles need beyond the allowed count."""
        self.check(w.shape)
        taken = (self._ordered(w.detach()) != 0).reshape(-1, self.granule()[0], w[0].numel() // self.banks, self.banks)
        in_row, in_bank = taken.sum((2, 3)).amax(1), taken.sum((1, 2)).amax(1)
        needed = torch.maximum((in_row + self.per_row - 1) // self.per_row, in_bank)
        return max(0, int(needed.sum()) - self._budget(w.shape))

    def _budget(self, shape: torch.Size) -> int:
        return self.budget(shape.numel() // self.banks)

    def _ordered(self, w: Tensor) -> Tensor:
        matrix = rows(w)
        return matrix if self.order is None else matrix[list(self.order)]

    def _found(self, w: Tensor) -> tuple[int, ...]:
        """Rows by how many weights they have among the strongest of the matrix, most first."""
        self.check(w.shape)
        self.require_finite(w)
        strength = rows(w.detach()).abs().double()
        strong = largest(strength.reshape(1, -1), self.budget(w.numel())).reshape(strength.shape).sum(1)
        return tuple(strong.argsort(descending=True, stable=True).tolist())

    def _horizontal(self, ranked: Tensor, budget: int) -> Tensor:
        """How many stay in each bank of each row, [rows, 1, 1], of the magnitudes `ranked` [rows, 1, banks, rank]: the
        i-th group of a row has the i-th largest of each bank."""
        # What a row's groups bring never rises, so that the largest of all are each row's first ones.
        brings = energies(ranked, (1, 2)).view(len(ranked), -1).cummin(dim=1).values
        chosen = largest(brings.reshape(1, -1), budget).reshape(brings.shape)
        return chosen.sum(1)[:, None, None]

    def _bundled(self, ranked: Tensor, budget: int) -> Tensor:
        """How many stay in each bank of each row, [bundles, rows of a bundle, banks], of the magnitudes `ranked`
        [bundles, rows of a bundle, banks, rank]."""
        bundles, height, banks, _ = ranked.shape
        taken = np.zeros((bundles, height * banks), dtype=np.int64)
        _native.take_groups(ranked.flatten(1, 2).cpu().numpy(), banks, self.per_row, budget, taken)
        return torch.from_numpy(taken).view(bundles, height, banks).to(ranked.device)


def _firsts(lists: Tensor, ranked: Tensor, count: Tensor) -> Tensor:
    """Flags of the `count` largest of each of `lists` [..., numbers]; of equal ones those of the lowest index. `ranked`
    are the same numbers from the largest on."""
    count = count.expand(lists.shape[:-1])[..., None]
    least = ranked.gather(-1, (count - 1).clamp(min=0)).masked_fill(count == 0, torch.inf)
    keep = lists >= least
    excess = keep.count_nonzero(-1)[..., None] > count
    if excess.any():
        some = excess[..., 0]
        last = lists[some] == least[some]
        more = keep[some].logical_xor(last)
        keep[some] = more | last & (last.cumsum(-1) <= count[some] - more.sum(-1, keepdim=True))
    return keep
