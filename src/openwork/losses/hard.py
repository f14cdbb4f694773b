"""Distillation of decisions: the teacher's class takes the place of the label."""

from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from .base import Loss, Outputs


class Hard(Loss):
    """-log softmax(student)[argmax teacher], averaged over the batch; needs no labels.

    >>> loss = Hard(weight=0.5)

    Source: Touvron et al. 2020, arXiv:2012.12877, section 3 ("hard-label distillation").
    """

    VANISHES: ClassVar[bool] = False
    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"weight": 0.5})

    def value(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        assert teacher is not None
        return functional.cross_entropy(student.logits, teacher.logits.argmax(1))
