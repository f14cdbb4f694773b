"""ADMM: weights are pulled towards a projected copy of themselves, with multipliers that remember the disagreement."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..constraints.base import Constraint
from .base import Solver, State, norm


class ADMM(Solver):
    """Scaled ADMM for  min f(W)  s.t.  W_i in S_i:  training steps on  f(W) + sum_i rho/2 ||W_i - Z_i + U_i||^2,  then
    Z_i <- project(W_i + U_i),  U_i <- U_i + W_i - Z_i  at each update.

    It starts from Z = project(W), U = 0. Residuals are those of Boyd et al.: primal ||W - Z||, dual rho ||Z -
    Z_before||, both over all weights together; both tend to zero as weights come to lie in their sets.

    >>> solver = ADMM(rho=0.01, growth=1.5)

    Source: Zhang et al. 2018, arXiv:1804.03294; Boyd et al. 2011, section 3.1.1.
    """

    rho: Annotated[float, Field(gt=0)] = 1e-3
    """Penalty weight before the first update, in units of loss per squared weight."""
    growth: Annotated[float, Field(ge=1)] = 1.0
    """Factor on rho at each update."""
    cap: Annotated[float, Field(gt=0)] = 1e3
    """Largest rho that growth may reach."""
    rescale_dual: bool = False
    """Multiply U by rho_before / rho at growth, as exact scaled ADMM needs; the published implementations leave U."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"rho": 1.0}, {"rho": 1.0, "growth": 1.3, "rescale_dual": True})
    METRICS: ClassVar[tuple[str, ...]] = ("rho", "primal_residual", "dual_residual")

    @model_validator(mode="after")
    def _cap_is_above_rho(self) -> "ADMM":
        if self.cap < self.rho:
            raise ValueError(f"cap {self.cap:g} is below rho {self.rho:g}; raise cap or lower rho")
        return self

    @torch.no_grad()
    def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> State:
        z = tuple(c.project(w) for w, c in zip(weights, constraints, strict=True))
        primal = norm([w - target for w, target in zip(weights, z, strict=True)])
        return State(
            tensors={"z": z, "u": tuple(torch.zeros_like(w, requires_grad=False) for w in weights)},
            numbers={"rho": self.rho, "primal_residual": primal},
        )

    def penalty(self, weights: Sequence[Tensor], state: State) -> Tensor:
        """sum_i rho/2 ||W_i - Z_i + U_i||^2, whose gradient rho (W - Z + U) is written without building a graph."""
        if not weights:
            return torch.zeros(())
        penalty: Tensor = _Pull.apply(state.numbers["rho"], state.tensors["z"], state.tensors["u"], *weights)  # type: ignore[no-untyped-call]
        return penalty

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State) -> State:
        before, u, rho = state.tensors["z"], state.tensors["u"], state.numbers["rho"]
        z = tuple(c.project(w + dual) for w, dual, c in zip(weights, u, constraints, strict=True))
        gaps = [w - target for w, target in zip(weights, z, strict=True)]
        next_rho = min(rho * self.growth, self.cap)
        scale = rho / next_rho if self.rescale_dual else 1.0
        return State(
            tensors={"z": z, "u": tuple((dual + gap).mul_(scale) for dual, gap in zip(u, gaps, strict=True))},
            numbers={
                "rho": next_rho,
                "primal_residual": norm(gaps),
                "dual_residual": rho * norm([a - b for a, b in zip(z, before, strict=True)]),
            },
        )


class _Pull(torch.autograd.Function):
    """rho/2 sum_i ||W_i - Z_i + U_i||^2 in two passes over the weights, and its gradient in one."""

    @staticmethod
    def forward(ctx: Any, rho: float, z: tuple[Tensor, ...], u: tuple[Tensor, ...], *weights: Tensor) -> Tensor:
        ctx.rho = rho
        ctx.gaps = torch._foreach_sub(list(weights), list(z))
        torch._foreach_add_(ctx.gaps, list(u))
        return torch.stack(torch._foreach_norm(ctx.gaps)).square().sum() * (rho / 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return (None, None, None, *torch._foreach_mul(ctx.gaps, float(grad) * ctx.rho))
