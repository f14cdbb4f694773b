"""BERT-base, uncased: 12 layers of 768, with the parameter names of `transformers` (Devlin et al. 2019).

Source: Devlin, Chang, Lee and Toutanova 2019, arXiv:1810.04805, section 3.
"""

from pathlib import Path

from torch import nn

from ._bert import Bert, example_inputs, rename
from .base import with_weights

__all__ = ["build", "example_inputs"]


def build(weights: str | Path | None = None) -> nn.Module:
    """BERT-base in evaluation mode: input_ids, attention_mask [batch, length] to the last hidden state.

    Arguments:
        weights: None (random) or the `model.safetensors` of a checkpoint as transformers saves it, with or without a
            head for a task. The head, and the pooler before it, are left out.

    Raises `MissingDependencyError` without transformers.
    """
    return with_weights(Bert("bert_base"), "bert_base", weights, rename=rename)
