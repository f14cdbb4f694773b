"""The residual networks of the CIFAR-10 experiments (He et al. 2016, section 4.2), shortcuts of option A.

Names follow akamaster/pytorch_resnet_cifar10, whose weights are the published ones: conv1, bn1,
layer{1..3}.{i}.conv{1,2} and bn{1,2}, linear.
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from .base import PRETRAINED, initialise, with_weights

INPUT_SHAPE = (1, 3, 32, 32)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.new_channels = outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.new_channels:
            # Option A: every second pixel, and zeros for the channels that are new, half of them on either side.
            side = self.new_channels // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, side, side))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """[batch, 3, 32, 32] to logits [batch, classes]; 6 * blocks + 2 layers, of `width` channels in the first stage."""

    def __init__(self, blocks: int, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise ModelError(f"width={width} must be even and at least 2: shortcuts pad channels on either side alike")
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, stride=1)
        self.layer2 = _stage(width, 2 * width, blocks, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.adaptive_avg_pool2d(x, (1, 1))
        logits: Tensor = self.linear(x.flatten(1))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    return nn.Sequential(Block(inputs, outputs, stride), *(Block(outputs, outputs, 1) for _ in range(blocks - 1)))


def build_depth(depth: int, weights: str | Path | None = PRETRAINED, classes: int = 10, width: int = 16) -> nn.Module:
    """The network of `depth` layers, in evaluation mode; `weights` as in `with_weights`."""
    model = CifarResNet((depth - 2) // 6, classes, width)
    return with_weights(model, f"cifar10_resnet{depth}", weights, published=True)
