"""The speech recogniser that RTMobile prunes: two GRU layers of 1,024 over 39 features a frame, 9.6 M weights.

Frames of TIMIT are 13 MFCCs with their first and second differences, every 10 ms; the classes are 48 phones. PyTorch's
GRU applies the reset gate after the matrix product, PyTorch-Kaldi's (which the paper trains) before it.

Source: Dong et al. 2020 (RTMobile), arXiv:2002.11474; Lee and Hon 1989 (the 48 phones).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ._recurrent import CLASSES, FEATURES, HIDDEN, LAYERS, frames, head_of, states
from .base import with_weights

__all__ = ["build", "example_inputs"]


class GRU(nn.Module):
    """Frames [batch, time, features] and state [batch, layers * directions, hidden] to scores and the new state.

    The scores are [batch, time, classes], or the hidden values [batch, time, hidden * directions] without classes. A
    stream is fed in pieces of any length, each with the state that the one before it returned; zeros come first.
    """

    def __init__(self, features: int, hidden: int, layers: int, bidirectional: bool, classes: int | None) -> None:
        super().__init__()
        self.rnn = nn.GRU(features, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.head = head_of(hidden, bidirectional, classes)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        y, state = self.rnn(x, state.transpose(0, 1).contiguous())
        return self.head(y), state.transpose(0, 1)


def build(
    weights: str | Path | None = None,
    classes: int | None = CLASSES,
    features: int = FEATURES,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    bidirectional: bool = False,
) -> nn.Module:
    """The GRU in evaluation mode.

    Arguments:
        weights: None (random) or a safetensors file.
        classes: scores of a frame; None leaves the last linear layer out.
        features: numbers in a frame.
        hidden: numbers in the state of a layer and direction.
        layers: GRU layers, one upon the other.
        bidirectional: a second GRU in every layer reads backwards, so whole utterances are needed.
    """
    return with_weights(GRU(features, hidden, layers, bidirectional, classes), "gru_timit", weights)


def example_inputs(
    batch: int = 1,
    length: int = 1,
    features: int = FEATURES,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    bidirectional: bool = False,
) -> tuple[Tensor, ...]:
    """Random frames [batch, length, features], one step of a stream by default, and a random state."""
    random = torch.Generator().manual_seed(0)
    return frames(random, batch, length, features), states(random, batch, hidden, layers, bidirectional)
