"""Distillation of probabilities: what the teacher holds of all classes, softened by a temperature."""

from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional

from .base import Loss, Outputs


class Soft(Loss):
    """T^2 * KL(softmax(teacher / T) || softmax(student / T)), averaged over the batch.

    T^2 keeps its gradients as large as those of the labels, whatever the temperature T.

    >>> loss = Soft(weight=0.5, temperature=3.0)

    Source: Hinton et al. 2015, arXiv:1503.02531, section 2.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"weight": 0.3, "temperature": 1.0})

    temperature: Annotated[float, Field(gt=0)] = 3.0
    """Divisor T of logits; larger means softer."""

    @property
    def factor(self) -> float:
        return self.weight * self.temperature * self.temperature

    def value(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        assert teacher is not None
        t = self.temperature
        return functional.kl_div(
            functional.log_softmax(student.logits / t, 1),
            functional.log_softmax(teacher.logits / t, 1),
            log_target=True,
            reduction="batchmean",
        )
