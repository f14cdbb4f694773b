"""Accuracy of an engine on a data set's test split."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError

if TYPE_CHECKING:
    from ..data.base import Data


BATCH = 100
"""Examples given to the engine at once; it runs them in pieces of the batch that it was compiled for."""


def accuracy(engine: Any, data: "Data") -> tuple[float, int]:
    """Share of right labels and the number of examples."""
    right = seen = 0
    for logits, labels in predictions(engine, data):
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return right / seen, seen


def predictions(engine: Any, data: "Data") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (logits [n, classes], labels [n]) over the test split, in order."""
    expected = tuple(engine.inputs[0].shape[1:])
    for x, labels in data.test_batches(BATCH):
        if tuple(x.shape[1:]) != expected:
            raise EngineError(
                f"{data.name} has examples of shape {tuple(x.shape[1:])}, the artifact wants {expected}; "
                "compile the model for this data"
            )
        outputs = engine(x.numpy())
        yield outputs[0] if isinstance(outputs, tuple) else outputs, labels.numpy()
