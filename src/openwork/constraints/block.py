"""Block sparsity: zeros come in blocks of r outputs by c inputs, so that one index serves r*c weights."""

from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from .base import Sparsity, energies

Side = Annotated[int, Field(ge=1)]


class Block(Sparsity):
    """Only the strongest r x c blocks of the matrix `[out, in*kh*kw]` stay.

    project: argmin_Z ||W - Z||_F  s.t.  at most round((1 - sparsity) * blocks) blocks differ from zero (exact; of
    equal norms the lowest index in row-major order of blocks stays). Raises ShapeError if r does not divide `out` or c
    does not divide `in*kh*kw`.

    >>> Block(shape=(2, 1), sparsity=0.5).project(torch.tensor([[1.0, 1.0], [2.0, 0.0]]))
    tensor([[1., 0.],
            [2., 0.]])

    Source: Narang et al. 2017, arXiv:1711.02782; with ADMM: Li et al. 2020, arXiv:2001.07710.
    """

    shape: tuple[Side, Side]
    """Block height r in outputs and width c in flattened inputs, each >= 1."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"shape": (4, 1), "sparsity": 0.5},
        {"shape": (2, 2), "sparsity": 0.75},
        {"shape": (1, 4), "sparsity": 0.5},
    )

    def granule(self) -> tuple[int, int]:
        return self.shape

    def scores(self, w: Tensor) -> Tensor:
        r, c = self.shape
        return energies(w.reshape(w.shape[0] // r, r, -1, c), (1, 3))

    def spread(self, keep: Tensor, shape: torch.Size) -> Tensor:
        r, c = self.shape
        rows, columns = shape[0] // r, shape[1:].numel() // c
        return keep.view(rows, 1, columns, 1).expand(rows, r, columns, c).reshape(shape)
