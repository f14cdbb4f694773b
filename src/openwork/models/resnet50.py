"""ResNet-50 for ImageNet, 224x224, with torchvision's parameter names (He et al. 2016, arXiv:1512.03385)."""

from pathlib import Path

from torch import nn

from ._resnet import Bottleneck, ResNet
from .base import with_weights

INPUT_SHAPE = (1, 3, 224, 224)


def build(weights: str | Path | None = None, classes: int = 1000) -> nn.Module:
    """ResNet-50 in evaluation mode; `weights` is None (random) or a safetensors file with torchvision's names."""
    return with_weights(ResNet(Bottleneck, (3, 4, 6, 3), classes), "resnet50", weights)
