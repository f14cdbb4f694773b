"""What the recurrent models share: sizes, the last layer, random inputs."""

import torch
from torch import Tensor, nn

from ..errors import UsageError

FEATURES, HIDDEN, LAYERS, CLASSES = 39, 1024, 2, 48


def head_of(hidden: int, bidirectional: bool, classes: int | None) -> nn.Module:
    """Scores from the hidden values of all directions; the identity without classes."""
    return nn.Identity() if classes is None else nn.Linear(hidden * (1 + bidirectional), classes)


def frames(random: torch.Generator, batch: int, length: int, features: int) -> Tensor:
    """Normal random frames, float32 [batch, length, features]."""
    if length < 1:
        raise UsageError(f"length={length} must be at least 1, one frame")
    return torch.randn(batch, length, features, generator=random)


def states(random: torch.Generator, batch: int, hidden: int, layers: int, bidirectional: bool) -> Tensor:
    """A state as training leaves it, within -1..1: float32 [batch, layers * directions, hidden]."""
    return torch.randn(batch, layers * (1 + bidirectional), hidden, generator=random).tanh()
