"""Accuracy of an engine on a data set's test split."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import EngineError

if TYPE_CHECKING:
    from ..data.base import Data


def accuracy(engine: Any, data: "Data") -> tuple[float, int]:
    """Share of right labels and the number of examples."""
    right = seen = 0
    for logits, labels in predictions(engine, data):
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return right / seen, seen


def predictions(engine: Any, data: "Data") -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (logits [n, classes], labels [n]) over the test split, in order.

    An artifact runs one batch size; the last batch is completed with zeros, whose outputs are dropped.
    """
    expected = tuple(engine.inputs[0].shape)
    for x, labels in data.test_batches(expected[0]):
        images = x.numpy()
        if tuple(images.shape[1:]) != expected[1:]:
            raise EngineError(
                f"{data.name} has examples of shape {tuple(images.shape[1:])}, the artifact wants {expected[1:]}; "
                "compile the model for this data"
            )
        missing = expected[0] - len(images)
        if missing:
            images = np.concatenate([images, np.zeros((missing, *expected[1:]), np.float32)])
        outputs = engine(images)
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        yield logits[: len(labels)], labels.numpy()
