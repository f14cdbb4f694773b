"""ViT-S/16 for ImageNet, 224x224: 12 layers of 384 with 6 heads over 14x14 patches and a class token; timm's names.

Source: Dosovitskiy et al. 2021, arXiv:2010.11929 (the model); Touvron et al. 2021, arXiv:2012.12877, table 1 (size S).
"""

from pathlib import Path

from torch import nn

from ._vit import VisionTransformer
from .base import with_weights

INPUT_SHAPE = (1, 3, 224, 224)


def build(weights: str | Path | None = None, classes: int = 1000) -> nn.Module:
    """ViT-S/16 in evaluation mode; `weights` is None (random) or a safetensors file with timm's names."""
    model = VisionTransformer(width=384, depth=12, heads=6, patch=16, side=INPUT_SHAPE[-1], classes=classes)
    return with_weights(model, "vit_s", weights)
