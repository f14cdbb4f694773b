"""ResNet-18 for ImageNet, 224x224, with torchvision's parameter names (He et al. 2016, arXiv:1512.03385)."""

from pathlib import Path

from torch import nn

from ._resnet import BasicBlock, ResNet
from .base import with_weights

INPUT_SHAPE = (1, 3, 224, 224)


def build(weights: str | Path | None = None, classes: int = 1000, small: bool = False) -> nn.Module:
    """ResNet-18 in evaluation mode; `weights` is None (random) or a safetensors file with torchvision's names. `small`:
    for images of 32x32, as papers on CIFAR-10 have it, with a stem of 3x3 that keeps every pixel."""
    return with_weights(ResNet(BasicBlock, (2, 2, 2, 2), classes, small), "resnet18", weights)
