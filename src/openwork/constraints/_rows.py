"""A weight as the matrix whose columns follow the reduction: input channels innermost."""

import torch
from torch import Tensor


def rows(w: Tensor) -> Tensor:
    """`[out, in, kh, kw]` or `[out, in]` -> `[out, kh*kw*in]`: column (y * kw + x) * in + channel."""
    return w.movedim(1, -1).flatten(1)


def weight(matrix: Tensor, shape: torch.Size) -> Tensor:
    """The way back: a matrix of `rows` -> a weight of `shape`."""
    return matrix.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1).contiguous()
