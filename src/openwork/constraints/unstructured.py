"""Unstructured sparsity: any weight may be zero."""

from typing import Any, ClassVar

import torch
from torch import Tensor

from .base import Sparsity


class Unstructured(Sparsity):
    """Only the largest weights stay, wherever they lie.

    project: argmin_Z ||W - Z||_F  s.t.  Z has at most round((1 - sparsity) * numel) non-zeros (exact; of equal
    magnitudes the lowest index stays).

    >>> Unstructured(sparsity=0.5).project(torch.tensor([[1.0, -3.0], [2.0, 0.5]]))
    tensor([[ 0., -3.],
            [ 2.,  0.]])

    Source: Zhang et al. 2018, arXiv:1804.03294.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"sparsity": 0.5}, {"sparsity": 0.9})

    def scores(self, w: Tensor) -> Tensor:
        return w.abs().flatten().to(torch.promote_types(w.dtype, torch.float32))

    def norms(self, w: Tensor) -> Tensor:
        return self.scores(w)

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        return keep.view(shape)
