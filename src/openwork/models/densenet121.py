"""DenseNet-121 for ImageNet, 224x224, with torchvision's parameter names: every layer reads all layers before it.

Source: Huang, Liu, van der Maaten and Weinberger 2017, arXiv:1608.06993, table 1.
"""

import re
from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .base import with_weights

INPUT_SHAPE = (1, 3, 224, 224)

_DEPTHS, _GROWTH, _STEM = (6, 12, 24, 16), 32, 64
_BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 to four times the growth, norm, ReLU, 3x3 to the growth: new channels only."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, _BOTTLENECK * _GROWTH, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(_BOTTLENECK * _GROWTH)
        self.conv2 = nn.Conv2d(_BOTTLENECK * _GROWTH, _GROWTH, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(F.relu(self.norm1(x)))
        y: Tensor = self.conv2(F.relu(self.norm2(x)))
        return y


class DenseBlock(nn.ModuleDict):
    """`depth` layers; the output is the input and what each of them adds."""

    def __init__(self, inputs: int, depth: int) -> None:
        super().__init__({f"denselayer{i + 1}": DenseLayer(inputs + i * _GROWTH) for i in range(depth)})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.values():
            x = torch.cat([x, layer(x)], dim=1)
        return x


def _transition(inputs: int) -> nn.Sequential:
    """Half the channels, half the side."""
    return nn.Sequential(
        OrderedDict(
            norm=nn.BatchNorm2d(inputs),
            relu=nn.ReLU(inplace=True),
            conv=nn.Conv2d(inputs, inputs // 2, 1, bias=False),
            pool=nn.AvgPool2d(2),
        )
    )


class DenseNet121(nn.Module):
    """[batch, 3, 224, 224] to logits [batch, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        parts: dict[str, nn.Module] = {
            "conv0": nn.Conv2d(3, _STEM, 7, 2, padding=3, bias=False),
            "norm0": nn.BatchNorm2d(_STEM),
            "relu0": nn.ReLU(inplace=True),
            "pool0": nn.MaxPool2d(3, 2, padding=1),
        }
        channels = _STEM
        for i, depth in enumerate(_DEPTHS, 1):
            parts[f"denseblock{i}"] = DenseBlock(channels, depth)
            channels += depth * _GROWTH
            if i < len(_DEPTHS):
                parts[f"transition{i}"] = _transition(channels)
                channels //= 2
        parts["norm5"] = nn.BatchNorm2d(channels)
        self.features = nn.Sequential(OrderedDict(parts))
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)  # by inputs: layers add few channels and read many

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(F.relu(self.features(x)), (1, 1))
        logits: Tensor = self.classifier(x.flatten(1))
        return logits


def build(weights: str | Path | None = None, classes: int = 1000) -> nn.Module:
    """DenseNet-121 in evaluation mode; `weights` is None (random) or a safetensors or .pth file of torchvision."""
    return with_weights(DenseNet121(classes), "densenet121", weights, rename=_rename)


def _rename(key: str) -> str:
    """torchvision's file has names from before PyTorch forbade dots in them: `denselayer1.norm.1.weight`."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key)
