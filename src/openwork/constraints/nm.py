"""N:M sparsity: of m consecutive inputs at most n have a weight, so that every output reads equally many."""

from typing import Annotated, Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ._rows import rows, weight
from .base import Masked, largest


class NM(Masked):
    """At most n of every m consecutive input channels have a non-zero weight, for each output and kernel position.

    project: argmin_Z ||W - Z||_F  s.t.  every group of m has at most n non-zeros (exact; of equal magnitudes the lowest
    channel stays). Groups do not overlap, so each keeps its n largest. For a grouped convolution, channels count within
    a group. Raises ShapeError if m does not divide `in`.

    >>> NM(n=2, m=4).project(torch.tensor([[1.0, 3.0, -2.0, 5.0, 2.0, 0.0, 0.5, -1.0]]))
    tensor([[ 0.,  3.,  0.,  5.,  2.,  0.,  0., -1.]])

    Source: Mishra et al. 2021, arXiv:2104.08378.
    """

    n: Annotated[int, Field(ge=1)] = 2
    """Weights kept in a group, 1..m-1."""
    m: Annotated[int, Field(ge=2, le=1024)] = 4
    """Group length in input channels, 2..1024."""

    FORMAT: ClassVar[str] = "nm"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"n": 2, "m": 4}, {"n": 1, "m": 4}, {"n": 3, "m": 8})

    @model_validator(mode="after")
    def _some_are_dropped(self) -> Self:
        if self.n >= self.m:
            raise ValueError(f"n = {self.n} of m = {self.m} keeps every weight; choose n below m")
        return self

    def layout(self) -> dict[str, Any]:
        return {"n": self.n, "m": self.m}

    def channels(self) -> int:
        return self.m

    def relaxed(self, share: float) -> Self | None:
        n = self.m - round((self.m - self.n) * min(share, 1.0))
        return self.model_copy(update={"n": n}) if n < self.m else None

    def mask(self, w: Tensor) -> Tensor:
        w = w.detach()
        self.check(w.shape)
        self.require_finite(w)
        groups = rows(w).abs().view(-1, self.m)
        return weight(largest(groups, self.n).view(w.shape[0], -1), w.shape)

    def violations(self, w: Tensor) -> int:
        """Non-zeros beyond n, summed over the groups."""
        self.check(w.shape)
        occupied = torch.stack([w.detach()[:, start :: self.m] != 0 for start in range(self.m)]).sum(0)
        return int((occupied - self.n).clamp(min=0).sum())
