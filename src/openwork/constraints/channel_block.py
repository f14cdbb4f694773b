"""Blocks of r outputs by c input channels at one kernel position: what kernels of 8-bit integers read in one word."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .block import Block


class ChannelBlock(Block):
    """Only the strongest blocks of r outputs by c consecutive input channels at one kernel position stay.

    Of linear layers they are those of `Block`; of convolutions `Block` puts neighbours in a kernel together instead.

    project: argmin_Z ||W - Z||_F  s.t.  at most round((1 - sparsity) * blocks) blocks differ from zero (exact; of
    equal norms the lowest index stays, outputs first, then kernel positions, then channels). Raises ShapeError if r
    does not divide `out` or c does not divide `in`.

    >>> w = torch.tensor([[1.0, 3.0], [1.0, 0.0]]).view(1, 2, 2, 1)     # channels [1, 3] and [1, 0]
    >>> ChannelBlock(shape=(1, 2), sparsity=0.5).project(w).flatten().tolist()
    [0.0, 3.0, 0.0, 0.0]

    Source: Narang et al. 2017, arXiv:1711.02782 (blocks).
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"shape": (4, 2), "sparsity": 0.5},
        {"shape": (2, 2), "sparsity": 0.75},
        {"shape": (2, 4), "sparsity": 0.5},
    )

    def granule(self) -> tuple[int, int]:
        return self.shape[0], 1

    def channels(self) -> int:
        return self.shape[1]

    def scores(self, w: Tensor) -> Tensor:
        return super().scores(w.movedim(1, -1))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        return super().spread(keep, torch.Size((shape[0], *shape[2:], shape[1]))).movedim(-1, 1)
