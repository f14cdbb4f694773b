"""ADMM: weights are pulled towards a projected copy of themselves, with multipliers that remember the disagreement."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ..constraints.base import Constraint
from ._known import pull
from .base import CurrentLoss, Solver, State, differences, norm


class ADMM(Solver):
    """Scaled ADMM for  min f(W)  s.t.  W_i in S_i:  training steps on  f(W) + sum_i rho/2 ||W_i - Z_i + U_i||^2,  then
    Z_i <- project(W_i + U_i),  U_i <- U_i + W_i - Z_i  at each update.

    It starts from Z = project(W), U = 0. Residuals are those of Boyd et al.: primal ||W - Z||, dual rho ||Z -
    Z_before||, both over all weights together; both tend to zero as weights come to lie in their sets.

    Where the sets are not convex, as zeros in places to be chosen are not, weights settle only if rho is large enough.
    `growing` gets there from any start. `balanced` saves updates where sets are convex, and brings rho to the right
    order of magnitude elsewhere, but no further: it rests where neither residual leads by more than `mu`.

    >>> solver = ADMM(rho=0.01, growth=1.5)
    >>> solver = ADMM(rho=0.01, policy="balanced", mu=10, tau=2)

    Source: Zhang et al. 2018, arXiv:1804.03294; Boyd et al. 2011, sections 3.1.1 and 3.4.1 (balanced residuals).
    """

    rho: Annotated[float, Field(gt=0)] = 1e-3
    """Penalty weight before the first update, in units of loss per squared weight."""
    policy: Literal["fixed", "growing", "balanced"] = "growing"
    """What happens to rho at an update: nothing; it is multiplied by `growth`; or it is multiplied by `tau` if the
    primal residual is more than `mu` times the dual one, and divided by `tau` if it is the other way round."""
    growth: Annotated[float, Field(ge=1)] = 1.0
    """Of `growing`: factor on rho at each update."""
    mu: Annotated[float, Field(gt=1)] = 10.0
    """Of `balanced`: how many times larger than the other one a residual may be, > 1."""
    tau: Annotated[float, Field(gt=1)] = 2.0
    """Of `balanced`: factor on rho, > 1."""
    floor: Annotated[float, Field(gt=0)] = 1e-6
    """Of `balanced`: smallest rho."""
    cap: Annotated[float, Field(gt=0)] = 1e3
    """Largest rho."""
    rescale_dual: bool = False
    """Multiply U by rho_before / rho at growth, as exact scaled ADMM needs; the published implementations leave U.
    Where residuals are balanced it always is multiplied."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = (
        {"rho": 1.0},
        {"rho": 1.0, "growth": 1.3, "rescale_dual": True},
        {"rho": 1.0, "policy": "balanced"},
    )
    METRICS: ClassVar[tuple[str, ...]] = ("rho", "primal_residual", "dual_residual")
    REMEDY: ClassVar[tuple[str, ...]] = ("rho",)

    @model_validator(mode="after")
    def _rho_is_within_its_limits(self) -> "ADMM":
        if self.cap < self.rho:
            raise ValueError(f"cap {self.cap:g} is below rho {self.rho:g}; raise cap or lower rho")
        if self.policy == "balanced" and self.floor > self.rho:
            raise ValueError(f"floor {self.floor:g} is above rho {self.rho:g}; lower floor or raise rho")
        if self.policy != "growing" and self.growth != 1:
            raise ValueError(f"growth {self.growth:g} has no effect with policy {self.policy!r}; leave one of them out")
        return self

    @torch.no_grad()
    def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> State:
        z = tuple(c.project(w) for w, c in zip(weights, constraints, strict=True))
        primal = norm(differences(weights, z))
        return State(
            tensors={"z": z, "u": tuple(torch.zeros_like(w, requires_grad=False) for w in weights)},
            numbers={"rho": self.rho, "primal_residual": primal},
        )

    def penalty(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State) -> Tensor:
        """sum_i rho/2 ||W_i - Z_i + U_i||^2."""
        return pull(state.numbers["rho"], state.tensors["z"], state.tensors["u"], weights)

    @torch.no_grad()
    def update(
        self,
        weights: Sequence[Tensor],
        constraints: Sequence[Constraint],
        state: State,
        loss: CurrentLoss | None = None,
    ) -> State:
        before, u, rho = state.tensors["z"], state.tensors["u"], state.numbers["rho"]
        z = tuple(c.project(w + dual) for w, dual, c in zip(weights, u, constraints, strict=True))
        gaps = differences(weights, z)
        primal, dual_residual = norm(gaps), rho * norm(differences(z, before))
        next_rho = self._next(rho, primal, dual_residual)
        scale = rho / next_rho if self.rescale_dual or self.policy == "balanced" else 1.0
        return State(
            tensors={"z": z, "u": tuple((dual + gap).mul_(scale) for dual, gap in zip(u, gaps, strict=True))},
            numbers={"rho": next_rho, "primal_residual": primal, "dual_residual": dual_residual},
        )

    def _next(self, rho: float, primal: float, dual: float) -> float:
        """rho after an update that left these residuals."""
        if self.policy == "growing":
            return min(rho * self.growth, self.cap)
        if self.policy == "balanced" and primal > self.mu * dual:
            return min(rho * self.tau, self.cap)
        if self.policy == "balanced" and dual > self.mu * primal:
            return max(rho / self.tau, self.floor)
        return rho
