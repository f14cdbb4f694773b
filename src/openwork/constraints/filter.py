"""Filter sparsity: whole output filters (rows of a linear layer) are zero."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Sparsity, energies


class Filter(Sparsity):
    """Only the strongest output filters stay, so that the layer can shrink to fewer outputs.

    project: argmin_Z ||W - Z||_F  s.t.  at most round((1 - sparsity) * out) of the slices W[o] differ from zero
    (exact; of equal norms the lowest index stays).

    >>> Filter(sparsity=0.5).project(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
    tensor([[0., 0.],
            [2., 0.]])

    Source: Wen et al. 2016, arXiv:1608.03665.
    """

    FORMAT: ClassVar[str] = "kept"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"sparsity": 0.5}, {"sparsity": 0.25})

    def scores(self, w: Tensor) -> Tensor:
        return energies(w, tuple(range(1, w.dim())))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        return keep.view(-1, *[1] * (len(shape) - 1))
