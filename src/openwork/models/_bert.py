"""BERT as `transformers` writes it, unchanged: what the language models of the zoo share.

Source: Devlin, Chang, Lee and Toutanova 2019, arXiv:1810.04805.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ._packages import library

LENGTH = 128
"""Tokens of an example where nothing else is asked for."""
MAX_LENGTH = 512
"""Positions that the published models have learned."""

_VOCABULARY = 30_522
_START, _END = 101, 102  # [CLS] and [SEP] of the uncased vocabulary; [PAD] is 0
_FIRST_WORD = 1_000  # below lie [unused...] tokens and single characters
# Heads of other tasks and of pre-training, and buffers that early versions of transformers saved.
_NOT_OURS = ("pooler.", "cls.", "classifier.", "qa_outputs.", "embeddings.position_ids")
_OLD_NAMES = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class Bert(nn.Module):
    """input_ids and attention_mask, int64 [batch, length], to the last hidden state, float32 [batch, length, hidden].

    The mask is 1 at words and 0 at padding. `settings` are those of `transformers.BertConfig`.
    """

    def __init__(self, needed_by: str, **settings: Any) -> None:
        super().__init__()
        transformers = library("transformers", needed_by)
        self.bert = transformers.BertModel(transformers.BertConfig(**settings), add_pooling_layer=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden: Tensor = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return hidden


def rename(key: str) -> str | None:
    """Our name of a tensor in a checkpoint of `BertModel` or of a model for a task that holds one as `bert`."""
    key = key.removeprefix("bert.")
    if key.startswith(_NOT_OURS):
        return None
    for old, new in _OLD_NAMES.items():
        key = key.replace(old, new)
    return f"bert.{key}"


def check_length(length: int) -> None:
    """`UsageError` for a number of tokens that the models cannot take."""
    if not 2 <= length <= MAX_LENGTH:
        raise UsageError(f"length={length} must lie in 2..{MAX_LENGTH}, the positions that the model has learned")


def example_inputs(batch: int = 1, length: int = LENGTH) -> tuple[Tensor, Tensor]:
    """Random sentences, int64 [batch, length], and their mask: the last eighth of the tokens is padding."""
    check_length(length)
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(_FIRST_WORD, _VOCABULARY, (batch, length), generator=random)
    words = length - length // 8
    ids[:, 0] = _START
    ids[:, words - 1] = _END
    ids[:, words:] = 0
    mask = torch.zeros_like(ids)
    mask[:, :words] = 1
    return ids, mask
