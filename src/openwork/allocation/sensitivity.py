"""What sparsity in one layer does to the network: the loss with that layer alone pruned, or the distance to its
projection."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.base import Batch, Data
from ..errors import DataError

BATCH = 100
"""Examples at a time."""


class Scan:
    """The loss of `model` on validation examples, as its weights are: nothing is trained.

    Arguments:
        model: in evaluation mode; its output is logits `[batch, classes]`.
        data: the validation split is used, and where there is none the first training batches; the test split never.
        examples: how many, at most.

    Raises DataError if there are none.
    """

    def __init__(self, model: nn.Module, data: Data, examples: int) -> None:
        self._model = model
        self._batches = list(_first(data.validation_batches(BATCH), examples))
        if not self._batches:
            self._batches = list(_first(data.train_batches(min(BATCH, data.train_size), 0, 0), examples))
        if not self._batches:
            raise DataError(f"{data.name} has no validation or training examples; set constraints.scan to weights")

    @torch.no_grad()
    def measure(self) -> tuple[float, float]:
        """Mean cross entropy, and the share of right labels."""
        device = next(self._model.parameters()).device
        loss = right = seen = 0.0
        for x, y in self._batches:
            logits, labels = self._model(x.to(device)).float(), y.to(device)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
            right += float((logits.argmax(1) == labels).sum())
            seen += len(y)
        return loss / seen, right / seen


@contextlib.contextmanager
def replaced(weight: Tensor, member: Tensor) -> Iterator[None]:
    """Inside, `weight` holds the values of `member`."""
    before = weight.detach().clone()
    try:
        weight.data.copy_(member)
        yield
    finally:
        weight.data.copy_(before)


def distance(weight: Tensor, member: Tensor) -> float:
    """||W - Z||^2 / ||W||^2, the share of a layer's energy that its projection cuts; 0 of a layer of zeros."""
    whole = float(weight.detach().double().square().sum())
    return float((weight.detach() - member).double().square().sum()) / whole if whole else 0.0


def _first(batches: Iterator[Batch], examples: int) -> Iterator[Batch]:
    """Batches of the first `examples` examples."""
    left = examples
    for x, y in batches:
        yield x[:left], y[:left]
        left -= len(y)
        if left <= 0:
            return
