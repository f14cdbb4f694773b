"""A weight as the matrix whose columns follow the reduction: input channels innermost."""

import numpy as np

from .base import F32


def rows(weight: F32) -> F32:
    """`[out, in, kh, kw]` or `[out, in]` -> `[out, kh*kw*in]`: column (y * kw + x) * in + channel; every zero is +0."""
    # -0.0 + 0.0 is +0.0
    return np.moveaxis(weight, 1, -1).reshape(len(weight), -1) + np.float32(0)


def weight(matrix: F32, shape: tuple[int, ...]) -> F32:
    """The way back: a matrix of `rows` -> a weight of `shape`."""
    return np.ascontiguousarray(np.moveaxis(matrix.reshape(shape[0], *shape[2:], shape[1]), -1, 1))
