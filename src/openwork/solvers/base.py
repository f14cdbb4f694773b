"""What a solver is: `init`, `penalty`, `update` over explicit frozen state, for any constraint.

A solver sees two lists of equal length: weights and the constraint that each must come to obey. A weight under several
constraints appears several times, so every constraint has its own auxiliary variables. Solvers know constraints only
through `project` (and `relaxed`, for those that tighten step by step, and `mask`, `group_norms` and `tied`, for those
that shrink what is to go).
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..config import Plugin
from ..constraints.base import Constraint

CurrentLoss = Callable[[], float]
"""The task's loss at the weights as they are now, over examples that are the same at every call."""


@dataclass(frozen=True)
class State:
    """Everything a solver remembers between updates; what a checkpoint holds of it. Treat the tensors as constants."""

    tensors: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    """Auxiliary tensors by name, each a tuple with one tensor per (weight, constraint), of the weight's shape."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Counters, penalty weights and residuals by name."""


class Solver(Plugin):
    """A method for  min f(W)  subject to  W_i in S_i.  Objects hold settings only; all that changes is in `State`."""

    ROOM: ClassVar[str] = "solvers"
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Arguments that contract tests build instances from."""
    METRICS: ClassVar[tuple[str, ...]] = ()
    """Names in `State.numbers` that are worth a curve in the report."""

    REMEDY: ClassVar[tuple[str, ...]] = ()
    """Fields to lower where losses or penalties grow without limit."""

    @abstractmethod
    def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> State:
        """State before the first training step."""

    @abstractmethod
    def penalty(self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State) -> Tensor:
        """What is added to the task loss in this step: a scalar tensor, differentiable in `weights`."""

    def after_step(
        self, weights: Sequence[Tensor], constraints: Sequence[Constraint], state: State, rate: float | None
    ) -> None:
        """Change `weights` in place after a step of the optimizer, whose learning rate was `rate` (None: unknown).
        Nothing, but for proximal methods."""

    @abstractmethod
    def update(
        self,
        weights: Sequence[Tensor],
        constraints: Sequence[Constraint],
        state: State,
        loss: CurrentLoss | None = None,
    ) -> State:
        """State after an update, which follows a stretch of training steps (an epoch, customarily). `loss` is for
        methods that compare it between updates; where it is None, they do without."""

    def masks(self, state: State) -> tuple[Tensor, ...] | None:
        """Bool masks that weights must keep while they are being shaped, or None if they move freely."""
        return None

    def metrics(self, state: State) -> dict[str, float]:
        """What to log for an epoch."""
        return {name: state.numbers[name] for name in self.METRICS if name in state.numbers}


def norm(tensors: Sequence[Tensor]) -> float:
    """The L2 norm of the concatenation of `tensors`."""
    return float(torch.stack(torch._foreach_norm(list(tensors))).norm()) if tensors else 0.0


def differences(weights: Sequence[Tensor], targets: Sequence[Tensor]) -> list[Tensor]:
    """W_i - Z_i, of which no gradient is taken."""
    return [w.detach() - z for w, z in zip(weights, targets, strict=True)]
