"""LeNet-5 in Caffe's variant, the one that pruning papers report: 20-50-500-10, 430,500 weights, 28x28 grey images.

Source: LeCun, Bottou, Bengio and Haffner 1998, 'Gradient-based learning applied to document recognition'.
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from .base import with_weights

INPUT_SHAPE = (1, 1, 28, 28)


class LeNet5(nn.Module):
    """[batch, 1, 28, 28] to logits [batch, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: Tensor) -> Tensor:
        # Caffe's network has no activation after the convolutions; with one it learns better, at the same size.
        # After the pooling, which gives the same, there are four times fewer of them.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        logits: Tensor = self.fc2(x)
        return logits


def build(weights: str | Path | None = None, classes: int = 10) -> nn.Module:
    """LeNet-5 in evaluation mode; `weights` is None (random) or the path of a safetensors file."""
    return with_weights(LeNet5(classes), "lenet5", weights)
