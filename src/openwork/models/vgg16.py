"""VGG-16 for ImageNet, 224x224, with torchvision's parameter names (configuration D, no batch norm).

Source: Simonyan and Zisserman 2015, arXiv:1409.1556.
"""

from pathlib import Path

from torch import Tensor, nn

from ._vgg import features
from .base import initialise, with_weights

INPUT_SHAPE = (1, 3, 224, 224)


class VGG16(nn.Module):
    """[batch, 3, 224, 224] to logits [batch, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.features = features(batch_norm=False)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, classes),
        )
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits


def build(weights: str | Path | None = None, classes: int = 1000) -> nn.Module:
    """VGG-16 in evaluation mode; `weights` is None (random) or a safetensors file with torchvision's names."""
    return with_weights(VGG16(classes), "vgg16", weights)
