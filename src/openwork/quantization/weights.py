"""Weights on a grid, an interval for each output channel."""

from typing import Literal

import torch
from torch import Tensor

from ..constraints.levels import DIGITS, Levels

Range = Literal["mse", "max"]
"""How the interval of a channel is chosen: for the least squared error, or so that nothing is clipped."""

_ROWS = 256
"""Channels at a time: what bounds the memory of the search."""


def on_grid(weight: Tensor, bits: int, how: Range) -> Tensor:
    """Weights [out, ...] rounded to whole numbers of at most 2^(bits - 1) - 1 times an interval of their channel.

    Zeros stay zeros. Intervals have few enough binary digits that the products are float32 numbers exactly, so that the
    grid is found in them again.
    """
    if how == "mse":
        levels = Levels(bits=bits, per="channel")
        return torch.cat([levels.project(rows) for rows in torch.split(weight.detach(), _ROWS)])
    top = 2 ** (bits - 1) - 1
    rows = weight.detach().flatten(1)
    mantissa, exponent = torch.frexp(rows.abs().amax(1, keepdim=True).double() / top)
    interval = torch.ldexp((mantissa * 2.0**DIGITS).ceil(), exponent - DIGITS)
    codes = (rows.double() / interval.where(interval > 0, 1.0)).round().clamp(-top, top)
    return (codes * interval).to(weight.dtype).view_as(weight)
