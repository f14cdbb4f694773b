"""A constraint on a weight that its granule does not divide: pad with zeros, constrain, crop."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from .base import Constraint, Holder


class Padded(Constraint):
    """`inner`, seen through a border of zeros that completes the matrix `[out, in*kh*kw]` to a multiple of its granule.
    Where `inner` counts input channels, the border has whole ones.

    Groups are counted with the border, so the sparsity of the cropped weight can differ a little from `inner.sparsity`.
    """

    inner: Constraint
    """The constraint whose granule does not divide the weight."""

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        self.inner.check(self.padded(torch.empty(shape, device="meta")).shape)

    def project(self, w: Tensor) -> Tensor:
        return self._crop(self.inner.project(self.padded(w)), w.shape)

    def mask(self, w: Tensor) -> Tensor:
        return self._crop(self.inner.mask(self.padded(w)), w.shape)

    def group_norms(self, w: Tensor) -> Tensor:
        return self._crop(self.inner.group_norms(self.padded(w)), w.shape)

    def violations(self, w: Tensor) -> int:
        return self.inner.violations(self.padded(w))

    def relaxed(self, share: float) -> Self | None:
        inner = self.inner.relaxed(share)
        return self.model_copy(update={"inner": inner}) if inner else None

    def fitted(self, weights: Sequence[Tensor]) -> tuple[Constraint, ...]:
        found = self.inner.fitted([self.padded(w) for w in weights])
        return tuple(self if inner == self.inner else self.model_copy(update={"inner": inner}) for inner in found)

    def fixed(self, member: Tensor | None) -> Self:
        inner = self.inner.fixed(None if member is None else self.padded(member))
        return self.model_copy(update={"inner": inner})

    def parts(self) -> tuple[Constraint, ...]:
        return tuple(self.model_copy(update={"inner": inner}) for inner in self.inner.parts())

    def holder(self, member: Tensor) -> Holder:
        inner = self.inner.holder(self.padded(member))
        return Holder(partial(self._held, inner.weight), partial(self._held, inner.gradient))

    @property
    def tied(self) -> bool:
        return self.inner.tied

    @property
    def keeps_zeros(self) -> bool:
        return self.inner.keeps_zeros

    @property
    def quantized(self) -> bool:
        return self.inner.quantized

    @property
    def shares(self) -> bool:
        return self.inner.shares

    @property
    def networks(self) -> int:
        return self.inner.networks

    @property
    def storage(self) -> str:
        return self.inner.storage

    def levels(self, w: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._crop(mask, w.shape) for mask in self.inner.levels(self.padded(w)))

    def layout_of(self, member: Tensor) -> dict[str, Any]:
        return self.inner.layout_of(self.padded(member))

    def layout(self) -> dict[str, Any]:
        return self.inner.layout()

    def __str__(self) -> str:
        return f"{self.inner}, padded"

    def padded(self, w: Tensor) -> Tensor:
        """`w` with the border that `inner` sees."""
        Constraint.check(self, w.shape)
        w, channels, (rows, columns) = w.detach(), self.inner.channels(), self.inner.granule()
        if channels == 1 and w[0].numel() % columns:
            w = w.reshape(w.shape[0], -1)
        else:
            columns = math.lcm(channels, columns // math.gcd(columns, w.shape[2:].numel()))
        border = (0, -w.shape[1] % columns, 0, -w.shape[0] % rows)
        return functional.pad(w, (0, 0) * (w.ndim - 2) + border)

    def _held(self, hold: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
        return self._crop(hold(self.padded(w)), w.shape)

    @staticmethod
    def _crop(padded: Tensor, shape: torch.Size) -> Tensor:
        width = shape[1] if padded.ndim == len(shape) else shape[1:].numel()
        return padded[: shape[0], :width].reshape(shape).clone()


def bare(constraint: Constraint) -> Constraint:
    """The constraint that a rule names, without the border that a weight may need."""
    return constraint.inner if isinstance(constraint, Padded) else constraint
