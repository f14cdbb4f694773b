"""How well an engine, or a network in PyTorch, does on a data set's test split: accuracy, or correlation with people's
judgement."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import plugins
from ..errors import EngineError, UsageError

if TYPE_CHECKING:
    from torch import nn

    from ..data import Data, SentencePairs


BATCH = 100
"""Examples given to the engine at once; it runs them in pieces of the batch that it was compiled for."""


def accuracy(engine: Any, data: "Data", level: int = 1) -> tuple[float, int]:
    """Share of right labels and the number of examples."""
    right = seen = 0
    for logits, labels in predictions(engine, data, level):
        right += int((logits.argmax(1) == labels).sum())
        seen += len(labels)
    return right / seen, seen


def predictions(engine: Any, data: "Data", level: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (logits [n, classes], labels [n]) over the test split, in order."""
    expected = tuple(engine.inputs[0].shape[1:])
    for x, labels in data.test_batches(BATCH):
        if tuple(x.shape[1:]) != expected:
            raise EngineError(
                f"{data.name} has examples of shape {tuple(x.shape[1:])}, the artifact wants {expected}; "
                "compile the model for this data"
            )
        outputs = engine(x.numpy(), level=level)
        yield outputs[0] if isinstance(outputs, tuple) else outputs, labels.numpy()


def correlation(engine: Any, pairs: "SentencePairs", level: int = 1) -> tuple[float, int]:
    """Spearman's correlation of a sentence encoder's similarities with the scores, and the number of pairs."""
    tokenize = tokenizer(engine.provenance.get("model"), pairs, engine.inputs[0].shape[1])

    def encode(sentences: Sequence[str]) -> Any:
        return engine(*(x.numpy() for x in tokenize(sentences)), level=level)

    return pairs.spearman(encode), len(pairs.test)


def tokenizer(spec: Any, pairs: "SentencePairs", length: int) -> Any:
    """The function from sentences to the inputs of the model that `spec` names; UsageError if it has none."""
    known = isinstance(spec, str) and spec in plugins.names("models")
    found = getattr(plugins.module("models", str(spec)), "tokenizer", None) if known else None
    if found is None:
        raise UsageError(
            f"{pairs.name} holds sentences, and the model ({spec or 'not named'}) has no tokenizer; "
            "use a sentence encoder of the zoo, such as minilm, or call pairs.spearman() in Python"
        )
    return found(length)


def of_network(network: "nn.Module", data: "Data | SentencePairs", spec: str, length: int) -> float:
    """Accuracy on the test split, or Spearman's correlation of a model that takes sentences of `length` tokens."""
    import torch

    from ..data import SentencePairs

    with torch.inference_mode():
        if isinstance(data, SentencePairs):
            tokenize = tokenizer(spec, data, length)
            return data.spearman(lambda sentences: network(*tokenize(sentences)))
        right = seen = 0
        for x, labels in data.test_batches(BATCH):
            right += int((network(x).argmax(1) == labels).sum())
            seen += len(labels)
    return right / seen
