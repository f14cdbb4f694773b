"""Self-supervised compression: the smaller network shall be judged as the larger one is, term by term."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.nn import functional

from .base import Loss, Outputs

_SMALLEST = 1e-8
"""Judgements of the original closer to zero than this count as this much: Wasserstein losses pass through zero."""


class SelfSupervised(Loss):
    """|L(teacher) - L(student)| / |L(teacher)|, L being the task's own loss: cross-entropy with the labels.

    The task's loss is not minimised any further: student and teacher are to be judged alike. For generative networks,
    whose generator and discriminator have several losses each, write your own loop and take `distance` of all of them.

    >>> loss = SelfSupervised(weight=0.5)

    Source: Yu and Pool 2020, arXiv:2007.01491.
    """

    EXAMPLES: ClassVar[tuple[dict[str, Any], ...]] = ({}, {"weight": 0.5})

    def value(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        assert teacher is not None
        original, compressed = (functional.cross_entropy(net.logits, labels) for net in (teacher, student))
        return distance({"task": original}, {"task": compressed})


def distance(
    original: Mapping[str, Tensor], compressed: Mapping[str, Tensor], weights: Mapping[str, float] | None = None
) -> Tensor:
    """sum_j w_j |a_j - b_j| / |a_j| over the losses j of the original network (a) and the compressed one (b).

    Both are judged by the same critic on the same inputs. Of a generative network that is  L = L_G + 0.5 L_D,  where
    L_G takes the generator's losses with the weights that training gave them, L_D the discriminator's. Free of scale:
    multiplying a_j and b_j changes nothing. Weights are 1 unless given.

    >>> import torch
    >>> float(distance({"generator": torch.tensor(2.0)}, {"generator": torch.tensor(2.5)}))
    0.25
    """
    total = sum(
        (weights or {}).get(name, 1.0) * (a.detach() - compressed[name]).abs() / a.detach().abs().clamp_min(_SMALLEST)
        for name, a in original.items()
    )
    assert isinstance(total, Tensor), "no losses to compare"
    return total
