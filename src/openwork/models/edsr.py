"""EDSR-baseline: super-resolution by 16 residual blocks without batch norm and a pixel shuffle, the authors' names.

Source: Lim, Son, Kim, Nah and Lee 2017, arXiv:1707.02921; names of sanghyun-son/EDSR-PyTorch.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .base import with_weights

INPUT_SHAPE = (1, 3, 64, 64)

_WIDTH, _BLOCKS = 64, 16
# Mean colour of the training set DIV2K, of pixels in 0..255.
_MEAN = (0.4488 * 255, 0.4371 * 255, 0.4040 * 255)
_SCALES = {2: (2,), 3: (3,), 4: (2, 2)}


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Block(nn.Module):
    """Two 3x3 convolutions with a ReLU between them, added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(width, width), nn.ReLU(inplace=True), _convolution(width, width))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.body(x)
        return y


class EDSR(nn.Module):
    """Pixels in 0..255, [batch, 3, height, width], to [batch, 3, scale * height, scale * width]."""

    mean: Tensor

    def __init__(self, factors: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.head = nn.Sequential(_convolution(3, _WIDTH))
        self.body = nn.Sequential(*(Block(_WIDTH) for _ in range(_BLOCKS)), _convolution(_WIDTH, _WIDTH))
        larger = [part for f in factors for part in (_convolution(_WIDTH, f * f * _WIDTH), nn.PixelShuffle(f))]
        self.tail = nn.Sequential(nn.Sequential(*larger), _convolution(_WIDTH, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x - self.mean)
        y: Tensor = self.tail(x + self.body(x)) + self.mean
        return y


def build(weights: str | Path | None = None, scale: int = 2) -> nn.Module:
    """EDSR-baseline in evaluation mode.

    Arguments:
        weights: None (random) or a safetensors or .pth file with the authors' names.
        scale: 2, 3 or 4 times the side.
    """
    if scale not in _SCALES:
        raise ModelError(f"scale={scale} of edsr is none of {', '.join(map(str, _SCALES))}")
    return with_weights(EDSR(_SCALES[scale]), "edsr", weights, rename=_rename)


def _rename(key: str) -> str | None:
    """The authors keep the mean colour as two convolutions that are not trained."""
    return None if key.startswith(("sub_mean.", "add_mean.")) else key
