"""What a loss is: a number about one batch, from what the network gives, what its teacher gives and the labels.

The teacher is the network as it was before it was pruned. Losses are settings only: which networks are run, and how
the layers that a loss names are heard, is the business of `training.objective`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field
from torch import Tensor

from ..config import Plugin
from ..errors import RecipeError


@dataclass(frozen=True)
class Outputs:
    """What a network gives for a batch, in float32."""

    logits: Tensor
    """`[batch, classes]`, or `[batch, classes, ...]`."""
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    """Outputs of the layers that a loss asked for, `[batch, ...]`."""


class Loss(Plugin):
    """One of the losses that are summed; it has no state."""

    ROOM: ClassVar[str] = "losses"
    ERROR = RecipeError
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """Arguments that contract tests build instances from; layers are called 'a' and 'b' there."""
    TEACHER: ClassVar[bool] = True
    """Whether it learns from the teacher."""
    VANISHES: ClassVar[bool] = True
    """Whether it is zero where network and teacher give the same."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Factor in the sum of all losses."""

    @property
    def factor(self) -> float:
        """What `value` is multiplied by in the sum: `weight`, and what else the definition puts before the loss."""
        return self.weight

    @property
    def hears(self) -> tuple[str, ...]:
        """Names of the layers whose outputs it compares."""
        return ()

    @abstractmethod
    def value(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        """The loss of a batch before `factor`: a scalar, differentiable in the student's outputs. `labels` are int64
        `[batch]`; `teacher` is there wherever `TEACHER` says so."""

    def parts(self, student: Outputs, teacher: Outputs | None) -> dict[str, Tensor]:
        """Figures of a batch that are worth a curve of their own, by name: scalars."""
        return {}

    def value_and_parts(
        self, student: Outputs, teacher: Outputs | None, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`value` and `parts`; overridden where one is made of the other, so that a training step works it out once."""
        return self.value(student, teacher, labels), self.parts(student, teacher)

    def after(self, means: Mapping[str, float]) -> Self:
        """The loss for the next phase; `means` are those of `parts` over the last epoch of the one before."""
        return self
