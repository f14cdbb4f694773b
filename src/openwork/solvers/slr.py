"""Surrogate Lagrangian relaxation: ADMM's split, with multipliers that move twice an update, by steps that shrink."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..constraints.base import Constraint
from ._known import pull
from .base import CurrentLoss, Solver, State, differences, norm


class SLR(Solver):
    """min f(W)  s.t.  W_i in S_i,  through the augmented Lagrangian  L(W, Z, A) = f(W) + sum_i <A_i, W_i - Z_i> +
    rho/2 ||W_i - Z_i||^2  with multipliers A:  training steps on L(., Z, A), then at each update

    1. if L(W, Z, A) < L(W_before, Z, A):  A <- A + s (W - Z)
    2. Z' = project(W + A / rho); if L(W, Z', A) < L(W, Z, A):  Z <- Z',  A <- A + s (W - Z)

    These are the surrogate optimality conditions: the subproblems need not be solved, only improved. Where one fails,
    what it guards stays as it is, and training goes on. W_before are the weights that step 1 accepted last; those of
    the first update are accepted untried. The step size s, one for all layers, changes so that s ||W - Z|| is
    alpha_k = 1 - 1 / (m k^(1 - 1/k^r))  times what it was when multipliers moved last, where k counts the updates that
    moved them; it needs no optimum to be known. If a residual is 0, s stays.

    The loss f in condition 1 is that over examples which are the same at every update: `compress` takes a batch of
    training data, your own loop gives `Shaper` a function. Without one, the linear and quadratic terms count alone.
    In condition 2, f is the same on both sides. As in ADMM, rho must be large enough.

    >>> solver = SLR(rho=0.1, step=0.01)
    >>> round(solver.alpha(1), 5), round(solver.alpha(100), 5)
    (0.99667, 0.99939)

    Source: Gurevin et al. 2021, arXiv:2012.10079; Bragin et al. 2015 (J. Optim. Theory Appl. 164), the step sizes.
    """

    rho: Annotated[float, Field(gt=0)] = 0.1
    """Penalty weight, in units of loss per squared weight."""
    step: Annotated[float, Field(gt=0)] = 0.01
    """Step size s of the multipliers at the start, in the units of rho; customarily far below it."""
    m: Annotated[float, Field(gt=1)] = 300.0
    """How slowly step sizes shrink, > 1: alpha_1 is 1 - 1/m."""
    r: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """How fast alpha_k comes near 1, in (0, 1)."""

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({"rho": 1.0}, {"rho": 0.5, "step": 0.1, "m": 50, "r": 0.3})
    METRICS: ClassVar[tuple[str, ...]] = ("rho", "step_size", "acceptance", "primal_residual", "dual_residual")
    REMEDY: ClassVar[tuple[str, ...]] = ("rho",)

    def alpha(self, k: int) -> float:
        """By what the k-th update shrinks s ||W - Z||, in (0, 1); k counts from 1."""
        return 1 - 1 / (self.m * math.pow(k, 1 - math.pow(k, -self.r)))

    @torch.no_grad()
    def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> State:
        z = tuple(c.project(w) for w, c in zip(weights, constraints, strict=True))
        residual = norm(differences(weights, z))
        return State(
            tensors={
                "z": z,
                # A / rho, as in scaled ADMM: the same pull on the weights.
                "u": tuple(torch.zeros_like(w, requires_grad=False) for w in weights),
                "before": _copies(weights),
            },
            numbers={
                "rho": self.rho,
                "step": self.step,
                "k": 1,
                "residual": residual,
                "tried": 0,
                "accepted": 0,
                "primal_residual": residual,
            },
        )

    def penalty(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State) -> Tensor:
        """sum_i rho/2 ||W_i - Z_i + A_i/rho||^2: what L adds to f, but for a term without W."""
        return pull(self.rho, state.tensors["z"], state.tensors["u"], weights)

    @torch.no_grad()
    def update(
        self,
        weights: Sequence[Tensor],
        constraints: Sequence[Constraint],
        state: State,
        loss: CurrentLoss | None = None,
    ) -> State:
        z, u, before = state.tensors["z"], state.tensors["u"], state.tensors["before"]
        numbers = dict(state.numbers)
        k = int(numbers["k"])
        value = loss() if loss is not None else None
        gaps = differences(weights, z)

        now, then = self._lagrangian(u, gaps), self._lagrangian(u, differences(before, z))
        if value is not None and "loss" in numbers:
            now, then = now + value, then + numbers["loss"]
        first = k == 1 or now < then
        if first:
            u = self._moved(u, gaps, k, numbers)
            before = _copies(weights)
            if value is not None:
                numbers["loss"] = value

        target = tuple(c.project(w + dual) for w, dual, c in zip(weights, u, constraints, strict=True))
        nearer = differences(weights, target)
        second = self._lagrangian(u, nearer) < self._lagrangian(u, gaps)
        if second:
            u = self._moved(u, nearer, k, numbers)
            numbers["dual_residual"] = self.rho * norm(differences(target, z))
            z, gaps = target, nearer
        else:
            numbers["dual_residual"] = 0.0

        numbers["k"] = k + (first or second)
        numbers["tried"] += 2
        numbers["accepted"] += first + second
        numbers["acceptance"] = numbers["accepted"] / numbers["tried"]
        numbers["primal_residual"] = norm(gaps)
        return State(tensors={"z": z, "u": u, "before": before}, numbers=numbers)

    def metrics(self, state: State) -> dict[str, float]:
        # Under another name: the line of an epoch has the `step` of the recipe.
        return {**super().metrics(state), "step_size": state.numbers["step"]}

    def step_size(self, k: int, before: float, residual: float, step: float) -> float:
        """The next step size: s ||W - Z|| shrinks by alpha_k. `before`: the residual when multipliers moved last."""
        return self.alpha(k) * step * before / residual if before > 0 and residual > 0 else step

    def _moved(
        self, u: tuple[Tensor, ...], gaps: list[Tensor], k: int, numbers: dict[str, float]
    ) -> tuple[Tensor, ...]:
        """Multipliers after a step along `gaps`; `numbers` keeps the step's size and the residual it was for."""
        residual = norm(gaps)
        numbers["step"] = self.step_size(k, numbers["residual"], residual, numbers["step"])
        numbers["residual"] = residual
        return tuple(torch._foreach_add(list(u), gaps, alpha=numbers["step"] / self.rho)) if u else u

    def _lagrangian(self, u: tuple[Tensor, ...], gaps: list[Tensor]) -> float:
        """sum_i <A_i, W_i - Z_i> + rho/2 ||W_i - Z_i||^2."""
        if not gaps:
            return 0.0
        linear = sum(float(product.sum()) for product in torch._foreach_mul(list(u), gaps))
        return self.rho * (linear + 0.5 * norm(gaps) ** 2)


def _copies(weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
    # Of the weights themselves the optimizer would change what stands for the weights before, and condition 1 would
    # compare them with themselves.
    return tuple(w.detach().clone() for w in weights)
