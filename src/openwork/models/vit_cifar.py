"""A small vision transformer for 32x32 images: 6 layers of 96 with 3 heads over 4x4 patches of 8x8 and a class token.

As wide for its heads as DeiT's smallest. Source: Dosovitskiy et al. 2021, arXiv:2010.11929.
"""

from pathlib import Path

from torch import nn

from ._vit import VisionTransformer
from .base import with_weights

INPUT_SHAPE = (1, 3, 32, 32)


def build(
    weights: str | Path | None = None, classes: int = 10, width: int = 96, depth: int = 6, patch: int = 8
) -> nn.Module:
    """The transformer in evaluation mode; `weights` is None (random) or a safetensors file.

    Every 32 of `width` are a head; `patch` divides 32.
    """
    model = VisionTransformer(width, depth, width // 32, patch, INPUT_SHAPE[-1], classes)
    return with_weights(model, "vit_cifar", weights)
