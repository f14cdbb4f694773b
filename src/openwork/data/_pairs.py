"""Pairs of sentences with a figure for how alike they are, and how well a model agrees with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, UsageError

Embed = Callable[[Sequence[str]], Any]
"""Sentences to vectors, an array or tensor [sentences, width]."""

_AT_ONCE = 100


@dataclass(frozen=True)
class Pairs:
    """Sentences side by side with their scores."""

    first: tuple[str, ...]
    """One sentence of each pair."""
    second: tuple[str, ...]
    """The other."""
    scores: np.ndarray
    """float32 [pairs]; a larger one means more alike."""

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class SentencePairs:
    """A data set of sentence pairs with its three splits."""

    name: str
    """Name of the data set."""
    train: Pairs
    """To learn from."""
    validation: Pairs
    """To choose by."""
    test: Pairs
    """To report."""

    def spearman(self, embed: Embed, split: str = "test") -> float:
        """Spearman's rank correlation of the pairs' cosine similarity with their scores, in -1..1.

        Arguments:
            embed: the model, from sentences to vectors.
            split: "train", "validation" or "test".

            tokenize, model = minilm.tokenizer(), models.resolve("minilm")
            data.load("stsb").spearman(lambda sentences: model(*tokenize(sentences)))
        """
        if split not in ("train", "validation", "test"):
            raise UsageError(f"split={split!r} is none of 'train', 'validation', 'test'")
        pairs: Pairs = getattr(self, split)
        alike = (_unit(embed, pairs.first) * _unit(embed, pairs.second)).sum(1)
        return spearman(alike, pairs.scores)


def _unit(embed: Embed, sentences: tuple[str, ...]) -> np.ndarray:
    """Vectors of length 1, float64 [sentences, width]."""
    parts = [np.asarray(embed(sentences[i : i + _AT_ONCE])) for i in range(0, len(sentences), _AT_ONCE)]
    found = np.concatenate(parts).astype(np.float64)
    lengths: np.ndarray = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, 1e-12))


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of the ranks; equal values share the mean of theirs. NaN where all values of a side are equal."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(_ranks(one), _ranks(other))[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])


def read_pairs(path: Path) -> Pairs:
    """The pairs in a table separated by tabs, without quoting, whose first line names the columns.

    Wanted are `sentence1`, `sentence2` and `score`; others are passed over. Raises `DataError` for what is damaged.
    """
    try:
        header, *lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); get it again") from error
    names = header.rstrip("\r").split("\t")
    if absent := {"sentence1", "sentence2", "score"} - set(names):
        raise DataError(f"{path} has no column {min(absent)}; its first line must name sentence1, sentence2, score")
    rows = [line.rstrip("\r").split("\t") for line in lines]
    columns = [names.index(name) for name in ("sentence1", "sentence2", "score")]
    first, second, scores = [], [], []
    for number, row in enumerate(rows, 2):
        try:
            one, two, score = (row[c] for c in columns)
            scores.append(float(score))
        except (IndexError, ValueError) as error:
            raise DataError(f"{path} is damaged in line {number} ({error}); get it again") from error
        first.append(one)
        second.append(two)
    if not scores:
        raise DataError(f"{path} holds no pairs; get it again")
    return Pairs(tuple(first), tuple(second), np.array(scores, np.float32))
