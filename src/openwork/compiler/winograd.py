"""Winograd's convolution F(m x m, 3 x 3): m x m outputs of a 3 x 3 kernel from (m + 2)^2 products instead of 9 m^2.

A tile of inputs and the kernel are read as polynomials and taken to their values at m + 1 points and infinity; there a
convolution is a product. What the engine does with the inputs is in `native/src/winograd_kernels.inl`; here weights are
taken there, once, in float64. Source: Lavin and Gray 2016, arXiv:1509.09308; that the choice of points decides what
rounding costs: Barabasz et al. 2018, arXiv:1803.10986.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.program import Array

_A = math.sqrt(0.5)

POINTS = {2: (0.0, 1.0, -1.0), 4: (0.0, _A, -_A, 2 * _A, -2 * _A)}
"""Finite points by tile size, as the native kernels have them."""

KERNEL = 3


def transform(m: int) -> NDArray[np.float64]:
    """The matrix [m + 2, 3] that takes a kernel's row to its values at the points and infinity."""
    points = POINTS[m]
    scale = [math.prod(p - q for q in points if q != p) for p in points]  # Lagrange's interpolation divides by it
    return np.array([*([p**k / s for k in range(KERNEL)] for p, s in zip(points, scale, strict=True)), [0.0, 0.0, 1.0]])


def pack(matrix: Array, bias: Array, m: int, width: int) -> dict[str, Array]:
    """Weights [out, channels * 9] as a step wants them: value [panels, points, channels, width], bias."""
    out, channels = len(matrix), matrix.shape[1] // KERNEL**2
    panels = -(-out // width)
    weight = np.zeros((panels * width, channels, KERNEL, KERNEL))
    weight[:out] = matrix.reshape(out, channels, KERNEL, KERNEL)
    g = transform(m)
    value = np.einsum("iy,ocyx,jx->ijco", g, weight, g, optimize=True).astype(np.float32)
    value = value.reshape((m + 2) ** 2, channels, panels, width).transpose(2, 0, 1, 3)
    padded = np.zeros(panels * width, np.float32)
    padded[:out] = bias
    return {"value": np.ascontiguousarray(value).reshape(-1), "bias": padded}


def applies(fields: Mapping[str, Any], groups: int) -> bool:
    """Whether a step of taps is a 3 x 3 convolution of stride 1 without groups."""
    if groups != 1 or len(fields["planes"]) != 1 or len(fields["shifts"]) != KERNEL**2:
        return False
    first, pitch = fields["shifts"][0][1], fields["grid"][2]
    return bool(fields["shifts"] == [[0, first + y * pitch + x] for y in range(KERNEL) for x in range(KERNEL)])
