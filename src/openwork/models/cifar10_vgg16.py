"""VGG-16 for 32x32 images: the thirteen convolutions with batch norm, then one linear layer.

Source: Simonyan and Zisserman 2015, arXiv:1409.1556; batch norm and the single linear layer are customary on CIFAR.
"""

from pathlib import Path

from torch import Tensor, nn

from ._vgg import features
from .base import initialise, with_weights

INPUT_SHAPE = (1, 3, 32, 32)


class CifarVGG16(nn.Module):
    """[batch, 3, 32, 32] to logits [batch, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.features = features(batch_norm=True)
        self.classifier = nn.Linear(512, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(weights: str | Path | None = None, classes: int = 10) -> nn.Module:
    """VGG-16 for CIFAR in evaluation mode; `weights` is None (random) or the path of a safetensors file."""
    return with_weights(CifarVGG16(classes), "cifar10_vgg16", weights)
