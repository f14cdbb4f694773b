"""ResNet-44 for CIFAR-10 (He et al. 2016, section 4.2, shortcuts of option A); published weights reach 93.10 %."""

from pathlib import Path

from torch import nn

from ._cifar_resnet import INPUT_SHAPE, build_depth
from .base import PRETRAINED

__all__ = ["INPUT_SHAPE", "build"]


def build(weights: str | Path | None = PRETRAINED, classes: int = 10, width: int = 16) -> nn.Module:
    """ResNet-44 in evaluation mode.

    `weights` is "pretrained" (`DATA/weights/cifar10_resnet44.safetensors`, by akamaster, BSD-2-Clause), None (random),
    or the path of a safetensors file; `width` is the channels of the first stage, 16 in the published network. Raises
    `ModelError` where weights are missing or do not fit.
    """
    return build_depth(44, weights, classes, width)
