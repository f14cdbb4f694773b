"""Column sparsity: the same kernel position of the same input channel is zero in every filter."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Sparsity, energies


class Column(Sparsity):
    """Only the strongest columns of the matrix `[out, in*kh*kw]` stay, so that the matrix product loses whole columns.

    project: argmin_Z ||W - Z||_F  s.t.  at most round((1 - sparsity) * in*kh*kw) columns differ from zero (exact; of
    equal norms the lowest index stays).

    >>> Column(sparsity=0.75).project(torch.tensor([[[[1.0, 3.0], [0.0, 2.0]]]]))
    tensor([[[[0., 3.],
              [0., 0.]]]])

    Source: Wen et al. 2016, arXiv:1608.03665 (shape-wise sparsity).
    """

    FORMAT: ClassVar[str] = "kept"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"sparsity": 0.5}, {"sparsity": 0.8})

    def scores(self, w: Tensor) -> Tensor:
        return energies(w.flatten(1), (0,))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        return keep.view(1, *shape[1:])
