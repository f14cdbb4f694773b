"""ShuffleNetV2 for ImageNet, 224x224, with torchvision's parameter names: half of the channels pass by each unit.

Source: Ma, Zhang, Zheng and Sun 2018, arXiv:1807.11164, table 5.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ModelError
from .base import initialise, with_weights

INPUT_SHAPE = (1, 3, 224, 224)

# Channels of stages 2, 3, 4 and of the last convolution, by width.
_CHANNELS = {
    0.5: (48, 96, 192, 1024),
    1.0: (116, 232, 464, 1024),
    1.5: (176, 352, 704, 1024),
    2.0: (244, 488, 976, 2048),
}
_STEM, _DEPTHS = 24, (4, 8, 4)


def shuffle(x: Tensor) -> Tensor:
    """The channels of both halves in turn: [a0 a1 .. b0 b1 ..] to [a0 b0 a1 b1 ..]."""
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)


def _pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _depthwise(channels: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False), nn.BatchNorm2d(channels)]


class Unit(nn.Module):
    """At stride 1 one half passes by and the other is computed; at stride 2 both branches read everything."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.stride = stride
        self.branch1 = nn.Sequential(*_depthwise(inputs, stride), *_pointwise(inputs, half)) if stride > 1 else None
        self.branch2 = nn.Sequential(
            *_pointwise(inputs if stride > 1 else half, half), *_depthwise(half, stride), *_pointwise(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.branch1 is None:
            passing, x = x.chunk(2, dim=1)
        else:
            passing = self.branch1(x)
        return shuffle(torch.cat([passing, self.branch2(x)], dim=1))


class ShuffleNetV2(nn.Module):
    """[batch, 3, 224, 224] to logits [batch, classes]."""

    def __init__(self, channels: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, _STEM, 3, 2, 1, bias=False), nn.BatchNorm2d(_STEM), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        self.stage2 = _stage(_STEM, channels[0], _DEPTHS[0])
        self.stage3 = _stage(channels[0], channels[1], _DEPTHS[1])
        self.stage4 = _stage(channels[1], channels[2], _DEPTHS[2])
        self.conv5 = nn.Sequential(*_pointwise(channels[2], channels[3]))
        self.fc = nn.Linear(channels[3], classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage4(self.stage3(self.stage2(self.maxpool(self.conv1(x)))))
        logits: Tensor = self.fc(self.conv5(x).mean((2, 3)))
        return logits


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    return nn.Sequential(Unit(inputs, outputs, 2), *(Unit(outputs, outputs, 1) for _ in range(depth - 1)))


def build(weights: str | Path | None = None, classes: int = 1000, width: float = 1.0) -> nn.Module:
    """ShuffleNetV2 in evaluation mode.

    Arguments:
        weights: None (random) or a safetensors or .pth file with torchvision's names.
        classes: outputs.
        width: 0.5, 1.0, 1.5 or 2.0 times the channels.
    """
    if width not in _CHANNELS:
        raise ModelError(f"width={width} of shufflenetv2 is none of {', '.join(map(str, _CHANNELS))}")
    return with_weights(ShuffleNetV2(_CHANNELS[width], classes), "shufflenetv2", weights)
