"""Polarized fragments: every few inputs of an output have weights of one sign."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from .base import Constraint, Holder


class Polarized(Constraint):
    """The inputs of each output are cut into fragments of `fragment` weights, none of which holds both signs.

    project: zeroes the weights of one sign in each fragment. With sign 'nearest' those of less energy, which is
    argmin_Z ||W - Z||_F (exact; of equal energies the positive ones stay); with 'sum' those against the sign of the
    fragment's sum, a heuristic. The last fragment of an output may be shorter.

    >>> Polarized(fragment=2).project(torch.tensor([[1.0, -2.0, 3.0, 1.0]]))
    tensor([[ 0., -2.,  3.,  1.]])

    Source: Yuan et al. 2021, arXiv:2106.09144.
    """

    fragment: Annotated[int, Field(ge=2)]
    """Weights in a fragment, >= 2: rows of a crossbar that are read together, 4 to 16."""
    order: Literal["channel", "height", "width"] = "channel"
    """Along which axis of a kernel a fragment runs: neighbours are input channels of one kernel position, rows of
    one channel's kernel, or its columns, which is the order of memory."""
    sign: Literal["nearest", "sum"] = "nearest"
    """What decides the sign of a fragment."""

    TIED: ClassVar[bool] = True
    FORMAT: ClassVar[str] = "polarized"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"fragment": 4},
        {"fragment": 3, "order": "height"},
        {"fragment": 8, "order": "width", "sign": "sum"},
    )

    def layout(self) -> dict[str, Any]:
        return {"fragment": self.fragment, "order": self.order}

    def project(self, w: Tensor) -> Tensor:
        self.check(w.shape)
        w = w.detach()
        self.require_finite(w)
        power = 2 if self.sign == "nearest" else 1
        fragments = self._fragments(w.double())
        above, below = (side.clamp(min=0).pow(power).sum(-1, keepdim=True) for side in (fragments, -fragments))
        drop = torch.where(above >= below, fragments < 0, fragments > 0)
        return w.masked_fill(self._weights(drop, w.shape), 0.0)

    def holder(self, member: Tensor) -> Holder:
        """Zeros where `member` has them, and where the sign is another one than that of `member`. Weights that are left
        share a sign and no number: each goes its own way."""
        sign = member.sign()
        return Holder(lambda w: w.detach().masked_fill(w.detach() * sign <= 0, 0.0), super().holder(member).gradient)

    def violations(self, w: Tensor) -> int:
        """Fragments with weights of both signs."""
        self.check(w.shape)
        fragments = self._fragments(w.detach())
        return int(((fragments > 0).any(-1) & (fragments < 0).any(-1)).sum())

    def _fragments(self, w: Tensor) -> Tensor:
        """The weights [out, fragments, fragment], zeros behind the last."""
        rows = w.permute(self._axes(w.ndim)).flatten(1)
        return functional.pad(rows, (0, -rows.shape[1] % self.fragment)).reshape(len(rows), -1, self.fragment)

    def _weights(self, fragments: Tensor, shape: torch.Size) -> Tensor:
        """What `_fragments` ordered, in the order of the weight."""
        axes = self._axes(len(shape))
        rows = fragments.flatten(1)[:, : shape[1:].numel()]
        return rows.reshape([shape[axis] for axis in axes]).permute([axes.index(axis) for axis in range(len(shape))])

    def _axes(self, dimensions: int) -> tuple[int, ...]:
        """The axes of a weight with the one last along which a fragment runs."""
        kernel = {"channel": (0, 2, 3, 1), "height": (0, 1, 3, 2)}
        own = tuple(range(dimensions))
        return kernel.get(self.order, own) if dimensions == 4 else own
