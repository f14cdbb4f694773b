"""The loss of plain training: cross-entropy with the labels."""

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from .base import Loss, Outputs


class Labels(Loss):
    """-log softmax(student)[label], averaged over the batch.

    >>> loss = Labels(weight=0.5, label_smoothing=0.1)
    """

    TEACHER: ClassVar[bool] = False
    VANISHES: ClassVar[bool] = False
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"weight": 0.5, "label_smoothing": 0.1})

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability spread over the wrong classes, in [0, 1)."""

    def value(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        return functional.cross_entropy(student.logits, labels, label_smoothing=self.label_smoothing)
