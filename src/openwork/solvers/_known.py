"""Penalties whose gradient is written down instead of recorded, so that a training step builds no graph for them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def known(value: Tensor, scale: float, directions: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """`value` (a scalar) as a function of `weights` whose gradient is `scale * directions`, one tensor per weight."""
    penalty: Tensor = _Known.apply(value, scale, list(directions), *weights)  # type: ignore[no-untyped-call]
    return penalty


def pull(rho: float, z: Sequence[Tensor], u: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """rho/2 sum_i ||W_i - Z_i + U_i||^2, whose gradient is rho (W - Z + U)."""
    if not weights:
        return torch.zeros(())
    with torch.no_grad():
        gaps = torch._foreach_sub(list(weights), list(z))
        torch._foreach_add_(gaps, list(u))
        value = torch.stack(torch._foreach_norm(gaps)).square().sum() * (rho / 2)
    return known(value, rho, gaps, weights)


class _Known(torch.autograd.Function):
    """One node, whose gradients go straight to the weights."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float, directions: list[Tensor], *weights: Tensor) -> Tensor:
        ctx.scale, ctx.directions = scale, directions
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (None, None, None, *torch._foreach_mul(ctx.directions, float(grad) * ctx.scale))
