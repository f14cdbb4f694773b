"""A task that trains in a second, for tests; as a script it runs `compress` on it, to be killed: tiny_task.py RUN_DIR
RECIPE."""

import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from openwork.data.base import Data
from openwork.recipes.recipe import Recipe
from openwork.training.compress import compress
from openwork.training.progress import Silent

RULES = """
rules:
  - {targets: all, constraint: {kind: block, shape: [4, 1], sparsity: 0.75}, on_misfit: pad}
"""
RECIPES = {
    "admm": RULES
    + """
solver: {kind: admm, rho: 0.1, growth: 1.5}
schedule:
  dense_epochs: 2
  shape_epochs: 3
  retrain_epochs: 3
  batch_size: 16
  dense_rate: {peak: 0.05, warmup_epochs: 1}
  shape_rate: {peak: 0.02}
  retrain_rate: {peak: 0.05, decay: cosine, warmup_epochs: 0.5}
  optimizer: {kind: sgd, momentum: 0.9, nesterov: true, weight_decay: 1.0e-3}
  distillation: {weight: 0.3, temperature: 2.0}
  norm_batches: 2
  channels_last: true
""",
    "gradual": RULES
    + """
solver: {kind: magnitude, gradual: true, ramp: 4, start: 0.2}
schedule:
  shape_epochs: 3
  retrain_epochs: 2
  updates_per_epoch: 2
  batch_size: 16
  shape_rate: {peak: 0.01, decay: step}
  retrain_rate: {peak: 0.01}
  optimizer: {kind: adam, weight_decay: 0.01}
  label_smoothing: 0.1
  precision: bfloat16
""",
    "slr": RULES
    + """
solver: {kind: slr, rho: 0.2, step: 0.02}
schedule:
  shape_epochs: 3
  retrain_epochs: 1
  updates_per_epoch: 2
  batch_size: 16
  shape_rate: {peak: 0.02}
  retrain_rate: {peak: 0.01}
  channels_last: true
""",
    "reweighted": RULES
    + """
solver: {kind: reweighted, strength: 1.0e-3, power: 1, target: 0.7, times: 2}
schedule: {shape_epochs: 3, retrain_epochs: 1, batch_size: 16}
""",
    "quantized": RULES
    + """
solver: {kind: magnitude}
quantize: {weights: {bits: {all: 4, conv1: 8}}, activations: {bits: 4, momentum: 0.8, batches: 2}}
schedule:
  shape_epochs: 0
  retrain_epochs: 1
  quantize_epochs: 2
  batch_size: 16
  retrain_rate: {peak: 0.05}
  quantize_rate: {peak: 0.02}
  losses: [{kind: labels}, {kind: feature, layers: [conv1, fc1], by_loss: true}]
  norm_batches: 2
  channels_last: true
""",
    "one-shot": RULES
    + """
solver: {kind: magnitude}
schedule: {shape_epochs: 2, retrain_epochs: 2, batch_size: 16}
""",
}


class TinyData(Data):
    """Four noisy patterns of 8x8 pixels to tell apart; 96 examples to train on, 32 to validate and 64 to test."""

    name = "tiny"
    classes = ("a", "b", "c", "d")
    train_size = 96

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(7)
        patterns = torch.randn(4, 1, 8, 8, generator=g)
        self._y = torch.arange(192) % 4
        self._x = patterns[self._y] + 0.7 * torch.randn(192, 1, 8, 8, generator=g)
        self.example_input = self._x[:1]

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        g = torch.Generator().manual_seed(1000 * seed + epoch)
        order = torch.randperm(self.train_size, generator=g)
        for step in range(self.train_steps(batch_size)):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            yield self._x[chosen] + 0.1 * torch.randn(len(chosen), 1, 8, 8, generator=g), self._y[chosen]

    def validation_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(self._x[96:128], self._y[96:128])])

    def test_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        return iter([(self._x[128:], self._y[128:])])


class TinyNet(nn.Module):
    """A small LeNet with everything that makes resuming hard: batch norm, dropout, a layer that needs padding."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.fc1 = nn.Linear(12, 18)
        self.head = nn.Linear(18, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 2)
        x = functional.relu(self.bn2(self.conv2(x))).flatten(1)
        x = functional.dropout(functional.relu(self.fc1(x)), 0.2, self.training)
        logits: Tensor = self.head(x)
        return logits


def tiny_net(seed: int = 0) -> TinyNet:
    """The same weights for the same seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return TinyNet()


def tiny_recipe(name: str = "admm") -> Recipe:
    """One of RECIPES."""
    return Recipe.parse(RECIPES[name], name=name)


class Loud(Silent):
    """Prints a line after each batch, so that a parent can choose the moment of a kill."""

    def batch_done(self, loss: float) -> None:
        print("batch", flush=True)

    def epoch_ended(self, metrics: dict[str, object]) -> None:
        print("epoch", flush=True)


if __name__ == "__main__":
    compress(tiny_net(), tiny_recipe(sys.argv[2]), TinyData(), sys.argv[1], threads=1, progress=Loud())
    print("finished", flush=True)
