"""Block columns: the rows of a block read the same inputs, which other blocks choose for themselves."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from ._strips import Strips
from .base import energies


class BlockColumn(Strips):
    """Of each p x q block of the matrix `[out, in*kh*kw]` only the strongest columns stay.

    project: argmin_Z ||W - Z||_F  s.t.  in every block at most max(1, round((1 - sparsity) * q)) columns differ from
    zero (exact; of equal norms the leftmost stays). With `balanced=False` the whole matrix has one budget instead, and
    the set is `Block(shape=(p, 1))`, whatever q is. Raises ShapeError if p does not divide `out` or q does not divide
    `in*kh*kw`. Together with whole rows, `And(of=(BlockColumn(...), Filter(...)))`, this is the pattern of RTMobile.

    >>> BlockColumn(shape=(2, 2), sparsity=0.5).project(torch.tensor([[1.0, 3.0, 0.0, 2.0], [2.0, 0.0, 1.0, 2.0]]))
    tensor([[0., 3., 0., 2.],
            [0., 0., 0., 2.]])

    Source: Dong et al. 2020, arXiv:2002.11474 (RTMobile); Li et al. 2020, arXiv:2009.08065 (BERT).
    """

    FORMAT: ClassVar[str] = "bspc"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"shape": (2, 4), "sparsity": 0.5},
        {"shape": (4, 2), "sparsity": 0.5},
        {"shape": (2, 2), "sparsity": 0.6, "balanced": False},
    )

    def layout(self) -> dict[str, Any]:
        return {"height": self.shape[0], "width": self.shape[1], "transposed": False}

    def scores(self, w: Tensor) -> Tensor:
        p, q = self.shape
        return energies(w.reshape(w.shape[0] // p, p, -1, q), (1,))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        p, q = self.shape
        strips, blocks = shape[0] // p, shape[1:].numel() // q
        return keep.view(strips, 1, blocks, q).expand(strips, p, blocks, q).reshape(shape)
