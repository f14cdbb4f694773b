"""Gather-scatter sparsity: non-zeros in groups that touch every memory bank once, so that a gather never waits."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..errors import ShapeError
from ._rows import rows, weight
from .base import Rated, largest

AHEAD = 4
"""Groups that a bundle of several rows can get, as a multiple of the average."""


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
        if self.violations(w) == 0:
            # Groups chosen anew, one after the other, need not find the fewest that hold a member.
            return w != 0
        matrix = self._ordered(w)
        energy = matrix.double().square().reshape(-1, self.granule()[0], matrix.shape[1])
        kept = (self._horizontal if self.per_row == self.banks else self._bundled)(energy, self._budget(w.shape))
        kept = kept.reshape(matrix.shape)
        if self.order is not None:
            kept = torch.zeros_like(kept).index_copy(0, torch.tensor(self.order), kept)
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

    def _horizontal(self, energy: Tensor, budget: int) -> Tensor:
        """Flags of what stays of `energy` [rows, 1, columns]: the i-th group of a row has the i-th largest of each
        bank."""
        banks = energy.reshape(len(energy), -1, self.banks)
        # What a row's groups bring never rises, so that the largest of all are each row's first ones.
        ranked, place = banks.sort(dim=1, descending=True, stable=True)
        brings = ranked.sum(2).cummin(dim=1).values
        chosen = largest(brings.reshape(1, -1), budget).reshape(brings.shape)
        return torch.zeros_like(banks, dtype=torch.bool).scatter(1, place, chosen[..., None].expand_as(place))

    def _bundled(self, energy: Tensor, budget: int) -> Tensor:
        """Flags of what stays of `energy` [bundles, rows of a bundle, columns]."""
        bundles, height, columns = energy.shape
        per_bank = columns // self.banks
        ranked, place = energy.reshape(bundles, height, per_bank, self.banks).sort(dim=2, descending=True, stable=True)
        most = min(columns // self.per_row, -(-AHEAD * budget // bundles))
        taken, brings = self._groups(ranked, most)
        # A bundle's groups are taken in the order in which they were found.
        count = largest(brings.cummin(dim=1).values.reshape(1, -1), budget).reshape(bundles, most).sum(1)
        flags = torch.zeros(bundles, height, per_bank, self.banks, dtype=torch.bool)
        inside = (torch.arange(most) < count[:, None])[..., None] & (taken >= 0)
        bundle, group, step = inside.nonzero(as_tuple=True)
        flags.view(bundles, -1)[bundle, taken[bundle, group, step]] = True
        return torch.zeros_like(flags).scatter(2, place, flags)

    def _groups(self, ranked: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """The first `most` groups of each bundle, [bundles, most, banks] places in `ranked` [bundles, rows, rank,
        banks] (-1: none left), and what each brings, [bundles, most]."""
        bundles, height, per_bank, banks = ranked.shape
        # Behind the last weight of a row in a bank comes one that nobody takes.
        padded = torch.cat([ranked, torch.full_like(ranked[:, :, :1], -1)], dim=2)
        next_rank = torch.zeros(bundles, height, banks, dtype=torch.long)
        head = padded[:, :, 0].clone()
        taken = torch.full((bundles, most, banks), -1)
        brings = torch.zeros(bundles, most, dtype=torch.float64)
        every = torch.arange(bundles)
        for group in range(most):
            open_rows = torch.full((bundles, height), self.per_row)
            offer = head.clone()
            for step in range(banks):
                best, at = offer.reshape(bundles, -1).max(dim=1)
                row, bank = at // banks, at % banks
                there = best >= 0
                rank = next_rank[every, row, bank]
                taken[:, group, step] = torch.where(there, (row * per_bank + rank) * banks + bank, -1)
                brings[:, group] += best.clamp(min=0)
                next_rank[every, row, bank] = rank + there
                head[every, row, bank] = padded[every, row, next_rank[every, row, bank], bank]
                offer[every, :, bank] = -1
                open_rows[every, row] -= there.long()
                offer.masked_fill_((open_rows == 0)[..., None], -1)
        return taken, brings
