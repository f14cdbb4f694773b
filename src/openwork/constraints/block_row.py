"""Block rows: the columns of a block serve the same outputs, which other blocks choose for themselves."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from ._strips import Strips
from .base import energies


class BlockRow(Strips):
    """Of each p x q block of the matrix `[out, in*kh*kw]` only the strongest rows stay.

    project: argmin_Z ||W - Z||_F  s.t.  in every block at most max(1, round((1 - sparsity) * p)) rows differ from zero
    (exact; of equal norms the uppermost stays). With `balanced=False` the whole matrix has one budget instead, and the
    set is `Block(shape=(1, q))`, whatever p is. Raises ShapeError if p does not divide `out` or q does not divide
    `in*kh*kw`.

    >>> BlockRow(shape=(2, 2), sparsity=0.5).project(torch.tensor([[1.0, 3.0, 0.0, 2.0], [2.0, 0.0, 1.0, 2.0]]))
    tensor([[1., 3., 0., 0.],
            [0., 0., 1., 2.]])

    Source: Li et al. 2020, arXiv:2009.08065.
    """

    FORMAT: ClassVar[str] = "bspc"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"shape": (4, 2), "sparsity": 0.5},
        {"shape": (2, 4), "sparsity": 0.5},
        {"shape": (2, 2), "sparsity": 0.6, "balanced": False},
    )

    def layout(self) -> dict[str, Any]:
        return {"height": self.shape[1], "width": self.shape[0], "transposed": True}

    def scores(self, w: Tensor) -> Tensor:
        p, q = self.shape
        return energies(w.reshape(w.shape[0] // p, p, -1, q).transpose(1, 2), (3,))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        p, q = self.shape
        strips, blocks = shape[0] // p, shape[1:].numel() // q
        return keep.view(strips, blocks, p, 1).transpose(1, 2).expand(strips, p, blocks, q).reshape(shape)
