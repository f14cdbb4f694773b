"""MobileNetV2 for ImageNet, 224x224, width 1.0, with torchvision's parameter names.

Source: Sandler, Howard, Zhu, Zhmoginov and Chen 2018, arXiv:1801.04381.
"""

from pathlib import Path

from torch import Tensor, nn

from .base import initialise, with_weights

INPUT_SHAPE = (1, 3, 224, 224)

# Expansion of the hidden channels, output channels, blocks, stride of the first block (table 2 of the paper).
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU6(inplace=True),
    )


class InvertedResidual(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down without activation; a shortcut where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        widen = [] if expansion == 1 else [_convolution(inputs, hidden, kernel=1)]
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            *widen,
            _convolution(hidden, hidden, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """[batch, 3, 224, 224] to logits [batch, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, 32, stride=2)]
        channels = 32
        for expansion, outputs, depth, stride in _STAGES:
            for block in range(depth):
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        layers.append(_convolution(channels, 1280, kernel=1))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def build(weights: str | Path | None = None, classes: int = 1000) -> nn.Module:
    """MobileNetV2 in evaluation mode; `weights` is None (random) or a safetensors file with torchvision's names."""
    return with_weights(MobileNetV2(classes), "mobilenetv2", weights)
