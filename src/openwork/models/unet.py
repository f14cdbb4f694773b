"""U-Net for segmentation: down four times, up again, with what each level saw on the way down put beside it.

Convolutions keep the size and are batch-normalised, as in the implementation most people use, milesial/Pytorch-UNet,
whose parameter names these are.

Source: Ronneberger, Fischer and Brox 2015, arXiv:1505.04597.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .base import initialise, with_weights

INPUT_SHAPE = (1, 3, 256, 256)

UPSAMPLING = ("transposed", "bilinear")
_LEVELS = (64, 128, 256, 512, 1024)


class DoubleConv(nn.Module):
    """Twice 3x3, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, between: int | None = None) -> None:
        super().__init__()
        between = between or outputs
        self.double_conv = nn.Sequential(
            nn.Conv2d(inputs, between, 3, padding=1, bias=False),
            nn.BatchNorm2d(between),
            nn.ReLU(inplace=True),
            nn.Conv2d(between, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.double_conv(x)
        return y


class Down(nn.Module):
    """Half the side, then convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.maxpool_conv(x)
        return y


class Up(nn.Module):
    """Twice the side; then convolutions over that and over what came by the same level on the way down."""

    def __init__(self, inputs: int, outputs: int, bilinear: bool) -> None:
        super().__init__()
        if bilinear:
            self.up: nn.Module = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(inputs, outputs, between=inputs // 2)
        else:
            self.up = nn.ConvTranspose2d(inputs, inputs // 2, 2, stride=2)
            self.conv = DoubleConv(inputs, outputs)

    def forward(self, x: Tensor, skipped: Tensor) -> Tensor:
        x = self.up(x)
        rows, columns = skipped.shape[2] - x.shape[2], skipped.shape[3] - x.shape[3]
        if rows or columns:  # halving had dropped an odd row or column
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        y: Tensor = self.conv(torch.cat([skipped, x], dim=1))
        return y


class Out(nn.Module):
    """1x1 to one score a class."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class UNet(nn.Module):
    """[batch, channels, height, width] to a score for each class and pixel, [batch, classes, height, width]."""

    def __init__(self, channels: int, classes: int, bilinear: bool) -> None:
        super().__init__()
        a, b, c, d, e = _LEVELS
        # Interpolation keeps the channels, so there are half as many before it.
        share = 2 if bilinear else 1
        self.inc = DoubleConv(channels, a)
        self.down1, self.down2, self.down3 = Down(a, b), Down(b, c), Down(c, d)
        self.down4 = Down(d, e // share)
        self.up1 = Up(e, d // share, bilinear)
        self.up2 = Up(d, c // share, bilinear)
        self.up3 = Up(c, b // share, bilinear)
        self.up4 = Up(b, a, bilinear)
        self.outc = Out(a, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        first = self.inc(x)
        second = self.down1(first)
        third = self.down2(second)
        fourth = self.down3(third)
        x = self.up1(self.down4(fourth), fourth)
        x = self.up4(self.up3(self.up2(x, third), second), first)
        scores: Tensor = self.outc(x)
        return scores


def build(
    weights: str | Path | None = None, classes: int = 2, channels: int = 3, upsampling: str = "transposed"
) -> nn.Module:
    """U-Net in evaluation mode.

    Arguments:
        weights: None (random) or a safetensors or .pth file with the names of milesial/Pytorch-UNet.
        classes: scores of a pixel.
        channels: of the image.
        upsampling: "transposed" (a learned convolution, 31.0 M weights) or "bilinear" (interpolation, 17.3 M).
    """
    if upsampling not in UPSAMPLING:
        raise ModelError(f"upsampling={upsampling!r} of unet is none of {', '.join(map(repr, UPSAMPLING))}")
    model = UNet(channels, classes, bilinear=upsampling == "bilinear")
    return with_weights(model, "unet", weights, rename=_rename)


def _rename(key: str) -> str | None:
    """Checkpoints of that implementation hold the values of its masks, too."""
    return None if key == "mask_values" else key
