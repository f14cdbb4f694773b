"""What a user brings: a model, data, and some that go wrong. The command line is pointed at this file."""

import os
import signal

import torch
from torch import nn

from openwork.data import ArrayData

INPUT_SHAPE = (1, 1, 8, 8)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.fc = nn.Linear(8 * 16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv(x)), 2)
        return self.fc(x.flatten(1))


def model() -> nn.Module:
    return Tiny()


def patterns() -> ArrayData:
    """Four noisy patterns to tell apart."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[object, object]:
        labels = torch.arange(count) % 4
        images = torch.randint(0, 60, (count, 1, 8, 8), generator=generator)
        for i, label in enumerate(labels):
            images[i, 0, 2 * int(label) : 2 * int(label) + 2] += 150
        return images.to(torch.uint8).numpy(), labels.numpy()

    return ArrayData(
        "patterns",
        train=split(64),
        validation=split(16),
        test=split(32),
        mean=(0.3,),
        std=(0.3,),
        classes=tuple("abcd"),
    )


def nan_weights() -> nn.Module:
    tiny = Tiny()
    with torch.no_grad():
        tiny.conv.weight[0, 0, 0, 0] = float("nan")
    return tiny


class Undecided(Tiny):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if float(x.sum()) > 0 else super().forward(-x)


def undecided() -> nn.Module:
    """Its control flow depends on data: torch.export cannot capture it."""
    return Undecided()


def no_layers() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.ReLU())


def empty_layer() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 0, 3), nn.ReLU())


def broken() -> nn.Module:
    raise ValueError("the user's own mistake")


def not_a_model() -> int:
    return 3


class Interrupted(Tiny):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        return super().forward(x)


def interrupted() -> nn.Module:
    """Somebody presses Ctrl-C while it is captured."""
    return Interrupted()
