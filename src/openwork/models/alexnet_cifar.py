"""AlexNet for 32x32 images: the five convolutions and three linear layers, with 3x3 kernels and less pooling.

Source: Krizhevsky, Sutskever and Hinton 2012; the reduction to CIFAR's image size is the customary one.
"""

from pathlib import Path

from torch import Tensor, nn

from .base import with_weights

INPUT_SHAPE = (1, 3, 32, 32)


class AlexNet(nn.Module):
    """[batch, 3, 32, 32] to logits [batch, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_stage(3, 64, stride=2, pool=True),
            *_stage(64, 192, pool=True),
            *_stage(192, 384),
            *_stage(384, 256),
            *_stage(256, 256, pool=True),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(256 * 2 * 2, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int, stride: int = 1, pool: bool = False) -> list[nn.Module]:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU(inplace=True)]
    return [*layers, nn.MaxPool2d(2)] if pool else layers


def build(weights: str | Path | None = None, classes: int = 10) -> nn.Module:
    """AlexNet in evaluation mode; `weights` is None (random) or the path of a safetensors file."""
    return with_weights(AlexNet(classes), "alexnet_cifar", weights)
