"""What block columns and block rows share: blocks of the matrix `[out, in*kh*kw]`, and budgets for each or for all."""

from typing import Annotated

import torch
from pydantic import Field

from .base import Sparsity

Side = Annotated[int, Field(ge=1)]


class Strips(Sparsity):
    """Groups that are the columns or the rows of blocks, block by block."""

    shape: tuple[Side, Side]
    """Block height p in outputs and width q in flattened inputs, each >= 1."""
    balanced: bool = True
    """Whether every block keeps equally many of its groups; else the strongest of the whole matrix stay."""

    def granule(self) -> tuple[int, int]:
        return self.shape

    def pieces(self, shape: torch.Size) -> int:
        return shape.numel() // (self.shape[0] * self.shape[1]) if self.balanced else 1
