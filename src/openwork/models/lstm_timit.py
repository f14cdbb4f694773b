"""The LSTM beside RTMobile's GRU: two layers of 1,024 over 39 features a frame of TIMIT, 12.7 M weights.

Source: Hochreiter and Schmidhuber 1997, 'Long short-term memory'; sizes as in gru_timit.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ._recurrent import CLASSES, FEATURES, HIDDEN, LAYERS, frames, head_of, states
from .base import with_weights

__all__ = ["build", "example_inputs"]


class LSTM(nn.Module):
    """Frames [batch, time, features], state and cell [batch, layers * directions, hidden] to scores, state and cell.

    The scores are [batch, time, classes], or the hidden values [batch, time, hidden * directions] without classes. A
    stream is fed in pieces of any length, each with what the one before it returned; zeros come first.
    """

    def __init__(self, features: int, hidden: int, layers: int, bidirectional: bool, classes: int | None) -> None:
        super().__init__()
        self.rnn = nn.LSTM(features, hidden, layers, batch_first=True, bidirectional=bidirectional)
        self.head = head_of(hidden, bidirectional, classes)

    def forward(self, x: Tensor, state: Tensor, cell: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, (state, cell) = self.rnn(x, (state.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()))
        return self.head(y), state.transpose(0, 1), cell.transpose(0, 1)


def build(
    weights: str | Path | None = None,
    classes: int | None = CLASSES,
    features: int = FEATURES,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    bidirectional: bool = False,
) -> nn.Module:
    """The LSTM in evaluation mode; arguments as for gru_timit."""
    return with_weights(LSTM(features, hidden, layers, bidirectional, classes), "lstm_timit", weights)


def example_inputs(
    batch: int = 1,
    length: int = 1,
    features: int = FEATURES,
    hidden: int = HIDDEN,
    layers: int = LAYERS,
    bidirectional: bool = False,
) -> tuple[Tensor, ...]:
    """Random frames [batch, length, features], one step of a stream by default, and a random state and cell."""
    random = torch.Generator().manual_seed(0)
    x = frames(random, batch, length, features)
    return x, *(states(random, batch, hidden, layers, bidirectional) for _ in range(2))
