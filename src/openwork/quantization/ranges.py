"""How far a grid reaches: where to cut a distribution of values so that rounding harms least."""

from collections.abc import Callable

import torch
from torch import Tensor

BINS = 1024
RATIOS = torch.logspace(-1.5, 0, 61, dtype=torch.float64)
"""Shares of the largest magnitude that are tried, 0.03 to 1."""


def largest(values: Tensor, steps: int) -> float:
    """The largest magnitude of `values`: nothing is cut off."""
    return float(values.abs().max()) if values.numel() else 0.0


def least_error(values: Tensor, steps: int) -> float:
    """Where a grid of `steps` steps from 0 has to end for the least sum of squared errors over `values`.

    Values beyond the end count with their distance to it. Of 61 ends on a logarithmic scale the best; values are
    counted in 1,024 bins.
    """
    size = values.detach().abs().float()
    top = largest(size, steps)
    if not top > 0:
        return 0.0
    counts = torch.histc(size, BINS, 0, top).double()
    centres = (torch.arange(BINS, dtype=torch.float64) + 0.5) * (top / BINS)
    scale = RATIOS[:, None] * (top / steps)
    error = ((centres / scale).round_().clamp_(max=steps).mul_(scale) - centres).square_() @ counts
    return top * float(RATIOS[int(error.argmin())])


OBSERVERS: dict[str, Callable[[Tensor, int], float]] = {"max": largest, "mse": least_error}
"""Ways to choose the end, by name."""
