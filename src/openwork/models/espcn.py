"""ESPCN: a picture three times as large from three small convolutions and a pixel shuffle.

Works on the luminance channel in 0..1; the colours are enlarged by interpolation.

Source: Shi et al. 2016, arXiv:1609.05158, section 3.2.
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .base import with_weights

INPUT_SHAPE = (1, 1, 224, 224)


class ESPCN(nn.Module):
    """[batch, 1, height, width] to [batch, 1, scale * height, scale * width]."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = nn.Conv2d(1, 64, 5, padding=2)
        self.conv2 = nn.Conv2d(64, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, scale**2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.conv1(x).tanh()).tanh()
        return F.pixel_shuffle(self.conv3(x), self.scale)


def build(weights: str | Path | None = None, scale: int = 3) -> nn.Module:
    """ESPCN in evaluation mode; `weights` is None (random) or a safetensors file, `scale` enlarges each side."""
    if scale < 1:
        raise ModelError(f"scale={scale} of espcn must be at least 1")
    return with_weights(ESPCN(scale), "espcn", weights)
