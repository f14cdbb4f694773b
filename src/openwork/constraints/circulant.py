"""Block-circulant weights: every b x b block is settled by its first column, so that b numbers stand for b*b."""

from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from ..errors import ShapeError
from .base import Constraint, Holder


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

    @property
    def shares(self) -> bool:
        return True

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
        self.require_finite(w)
        return self._spread(w, self.rule)

    def holder(self, member: Tensor) -> Holder:
        # Gradients may be infinite in a step that the loss's scaling is about to leave out; weights may not.
        return Holder(self.model_copy(update={"rule": "mean"}).project, partial(self._spread, rule="mean"))

    def mask(self, w: Tensor) -> Tensor:
        self.check(w.shape)
        return torch.ones_like(w, dtype=torch.bool)

    def violations(self, w: Tensor) -> int:
        """Weights that differ from the first one of their diagonal."""
        self.check(w.shape)
        diagonals, there = self._diagonals(w.detach()), self._there(w)
        return int(torch.count_nonzero((diagonals != _first(diagonals, there)[:, None]) & there))

    def _spread(self, w: Tensor, rule: str) -> Tensor:
        """Every weight replaced by what stands for its diagonal."""
        self.check(w.shape)
        w = w.detach()
        diagonals, there = self._diagonals(w), self._there(w)
        found = _mean(diagonals, there).to(w.dtype) if rule == "mean" else _first(diagonals, there)
        b, (out, inputs) = self.block, w.shape[:2]
        # Row i of a block reads the diagonals i, i - 1, ..., b - 1, ..., i + 1: windows of all, twice in a row.
        twice = torch.cat([found, found]).flip(0)
        windows = twice.as_strided((b, *found.shape), (twice.stride(0), *twice.stride()))
        blocks = windows.flip(0).permute(2, 0, 3, 1, 4).flatten(2, 3).flatten(0, 1)
        return blocks[:out, :inputs].reshape(w.shape)

    def _diagonals(self, w: Tensor) -> Tensor:
        """The weights [b, b, p, q, positions] by diagonal and column of each of p x q blocks, a view; 0 where an edge
        cuts them off."""
        b, (out, inputs) = self.block, w.shape[:2]
        border = (0, 0, 0, -inputs % b, 0, -out % b)
        matrix = functional.pad(w.reshape(out, inputs, -1), border) if any(border) else w.reshape(out, inputs, -1)
        # Row, column, block, so that sums over diagonals are sums of long rows.
        blocks = matrix.reshape(len(matrix) // b, b, matrix.shape[1] // b, b, -1)
        cells = blocks.permute(1, 3, 0, 2, 4)
        # Diagonal k lies in rows k, k + 1, ... of the columns 0, 1, ...: a slanted view of the rows, twice in a row.
        twice = torch.cat([cells, cells])
        row, column, *rest = twice.stride()
        return twice.as_strided((b, b, *twice.shape[2:]), (row, row + column, *rest))

    def _there(self, w: Tensor) -> Tensor:
        """Which weights of `_diagonals` are in the matrix, one position for all."""
        if w.shape[0] % self.block == 0 and w.shape[1] % self.block == 0:
            return torch.ones((self.block, self.block, 1, 1, 1), dtype=torch.bool, device=w.device)
        return self._diagonals(torch.ones(w.shape[:2], dtype=torch.bool, device=w.device))


def _mean(diagonals: Tensor, there: Tensor) -> Tensor:
    """Of each diagonal [b, b, ...] the mean of the weights that are there, [b, ...] in float64."""
    total = torch.zeros_like(diagonals[:, 0], dtype=torch.float64, memory_format=torch.contiguous_format)
    for column in diagonals.unbind(1):
        total += column
    return total.div_(there.sum(1).clamp(min=1))


def _first(diagonals: Tensor, there: Tensor) -> Tensor:
    """Of each diagonal [b, b, ...] the first weight that is there, [b, ...]."""
    if there.numel() == len(there) ** 2:
        return diagonals[:, 0]
    at = there.int().argmax(1, keepdim=True)
    return diagonals.gather(1, at.expand(len(at), 1, *diagonals.shape[2:]))[:, 0]
