"""Connectivity: whole kernels are zero, so that a filter reads some of its input channels only."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..errors import ShapeError
from .base import Sparsity, by, energies


class Connectivity(Sparsity):
    """Only the strongest kernels W[o, i] stay; of a linear layer or 1x1 convolution, whose kernels have one entry, the
    strongest weights.

    project: argmin_Z ||W - Z||_F  s.t.  at most round((1 - sparsity) * kernels) kernels differ from zero (exact; of
    equal norms the lowest index, filter by filter, stays). With `group` g, the kernels of g consecutive filters go or
    stay together and count as one. Raises ShapeError if g does not divide `out`, and for depthwise layers, whose
    channels would go with their only kernel.

    >>> Connectivity(sparsity=0.5).project(torch.tensor([[[[1.0, 2.0]], [[0.0, 1.0]]]]))
    tensor([[[[1., 2.]],
    <BLANKLINE>
             [[0., 0.]]]])

    Source: Niu et al. 2020, arXiv:2001.00138.
    """

    group: Annotated[int, Field(ge=1)] = 1
    """Consecutive filters that read the same channels; 4 and 8 suit the engine."""

    FORMAT: ClassVar[str] = "fkw"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"sparsity": 0.7}, {"sparsity": 0.5, "group": 4})

    def granule(self) -> tuple[int, int]:
        return (self.group, 1)

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        if shape[1] == 1 and torch.Size(shape[2:]).numel() > 1:
            raise ShapeError(
                f"connectivity: a depthwise layer (weight {by(shape)}) would lose whole channels with its kernels; "
                "choose filter if that is meant, or set on_misfit to skip"
            )

    def scores(self, w: Tensor) -> Tensor:
        return energies(w.reshape(w.shape[0] // self.group, self.group, w.shape[1], -1), (1, 3))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        keep = keep.view(shape[0] // self.group, shape[1]).repeat_interleave(self.group, 0)
        return keep.view(*shape[:2], *[1] * (len(shape) - 2))
