"""Block-circulant weights: every b x b block is settled by its first column, so that b numbers stand for b*b."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ..errors import ShapeError
from .base import Constraint


class Circulant(Constraint):
    """Every block of `block` outputs by `block` inputs is circulant: W[i, j] depends on (i - j) mod block only. Of a
    convolution that holds at each kernel position by itself.

    project: with rule 'mean' argmin_Z ||W - Z||_F (exact): each weight becomes the mean of its wrapped diagonal. Rule
    'first' takes the first weight of each diagonal, which for whole blocks is the block's first column: a heuristic,
    never nearer than the mean, there to compare with. Blocks at the edge of a matrix that `block` does not divide are
    corners of circulant ones. Raises ShapeError if there are fewer outputs or inputs than `block`.

    >>> Circulant(block=2).project(torch.tensor([[1.0, 5.0], [3.0, 2.0]]))
    tensor([[1.5000, 4.0000],
            [4.0000, 1.5000]])

    Source: Lin et al. 2018, arXiv:1712.04910 (block-circulant layers); Li et al. 2020, arXiv:2007.08563 (the mean).
    """

    block: Annotated[int, Field(ge=2)]
    """Side of a block and factor of compression, >= 2. The engine has a kernel for powers of two from 4 to 128."""
    rule: Literal["mean", "first"] = "mean"
    """What stands for a diagonal: its mean, or its first weight."""

    TIED: ClassVar[bool] = True
    FORMAT: ClassVar[str] = "circulant"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"block": 4}, {"block": 3}, {"block": 4, "rule": "first"})

    def layout(self) -> dict[str, Any]:
        return {"block": self.block}

    def check(self, shape: torch.Size | tuple[int, ...]) -> None:
        super().check(shape)
        if self.block > min(shape[:2]):
            raise ShapeError(
                f"circulant: block = {self.block} is more than the {shape[0]} outputs or {shape[1]} inputs of weight "
                f"{'x'.join(map(str, shape))}; choose a smaller block, or set on_misfit to skip"
            )

    def project(self, w: Tensor) -> Tensor:
        return self._spread(w, self.rule)

    def hold(self, w: Tensor, member: Tensor) -> Tensor:
        return self._spread(w, "mean")

    def mask(self, w: Tensor) -> Tensor:
        self.check(w.shape)
        return torch.ones_like(w, dtype=torch.bool)

    def violations(self, w: Tensor) -> int:
        """Weights that differ from the first one of their diagonal."""
        self.check(w.shape)
        diagonals, there = self._diagonals(w.detach())
        return int(torch.count_nonzero((diagonals != _first(diagonals, there)) & there))

    def _spread(self, w: Tensor, rule: str) -> Tensor:
        """Every weight replaced by what stands for its diagonal."""
        self.check(w.shape)
        w = w.detach()
        self.require_finite(w)
        diagonals, there = self._diagonals(w.double())
        if rule == "mean":
            found = diagonals.sum(-1, keepdim=True) / there.sum(-1, keepdim=True).clamp(min=1)
        else:
            found = _first(diagonals, there)
        b, (out, inputs) = self.block, w.shape[:2]
        row, column = torch.arange(out, device=w.device)[:, None], torch.arange(inputs, device=w.device)
        spread = found[:, row // b, column // b, (row - column) % b, 0]
        return spread.movedim(0, -1).reshape(w.shape).to(w.dtype)

    def _diagonals(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The weights [positions, p, q, b, b] by block, diagonal and column, zero where an edge cuts them off; and a
        flag for each [p, q, b, b]: whether it is there."""
        b, (out, inputs) = self.block, w.shape[:2]
        border = (0, -inputs % b, 0, -out % b)
        column = torch.arange(b, device=w.device)
        row = (column + column[:, None]) % b  # of diagonal k in each column

        def by_diagonal(matrix: Tensor) -> Tensor:
            padded = functional.pad(matrix, border)
            *positions, height, width = padded.shape
            blocks = padded.reshape(*positions, height // b, b, width // b, b).transpose(-3, -2)
            return blocks[..., row, column]

        there = by_diagonal(torch.ones(out, inputs, device=w.device)) > 0
        return by_diagonal(w.reshape(out, inputs, -1).movedim(-1, 0)), there


def _first(diagonals: Tensor, there: Tensor) -> Tensor:
    """Of each diagonal [..., b, b] the first weight that is there, [..., b, 1]."""
    at = there.int().argmax(-1, keepdim=True)
    return diagonals.gather(-1, at.expand(*diagonals.shape[:-1], 1))
