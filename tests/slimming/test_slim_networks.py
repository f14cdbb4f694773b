"""Networks put together at random, and those of the zoo: slimmed, they compute the same and have no more to give."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from slims import Calls, X, lively, outputs, row, slimmed
from torch import Tensor, nn
from torch.nn import functional as F

from openwork.slimming.slim import slim

KINDS = ("conv", "conv", "pointwise", "depthwise", "grouped", "norm", "add", "cat", "act")


class Random(nn.Module):
    """Convolutions, sums and concatenations put together by a list of choices."""

    def __init__(self, choices: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        self.ops: list[tuple[str, int, int]] = []
        self.layers, widths = nn.ModuleList(), [3]
        for kind, a, b in choices:
            first, second = a % len(widths), b % len(widths)
            width, name = widths[first], KINDS[kind]
            layer: nn.Module = nn.Identity()
            if name == "conv":
                layer, width = nn.Conv2d(width, 2 + b % 4, 3, padding=1, bias=bool(a % 2)), 2 + b % 4
            elif name == "pointwise":
                layer, width = nn.Conv2d(width, 4, 1, bias=bool(a % 2)), 4
            elif name == "depthwise":
                layer = nn.Conv2d(width, width, 3, padding=1, groups=width)
            elif name == "grouped" and width % 2 == 0:
                layer, width = nn.Conv2d(width, 4, 3, padding=1, groups=2), 4
            elif name == "norm":
                layer = nn.BatchNorm2d(width)
            elif name == "act":
                layer = (nn.ReLU(), nn.Sigmoid(), nn.AvgPool2d(3, 1, 1), nn.MaxPool2d(3, 1, 1))[b % 4]
            elif name == "add":
                same = [i for i, w in enumerate(widths) if w == width]
                second = same[b % len(same)]
            elif name == "cat":
                width += widths[second]
            widths.append(width)
            self.layers.append(layer)
            self.ops.append((name, first, second))
        self.last = nn.Conv2d(widths[-1], 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for (name, first, second), layer in zip(self.ops, self.layers, strict=True):
            if name == "add":
                values.append(values[first] + values[second])
            elif name == "cat":
                values.append(torch.cat([values[first], values[second]], 1))
            else:
                values.append(layer(values[first]))
        return self.last(values[-1])


choice = st.tuples(st.integers(0, 8), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=20, deadline=None)
@given(st.lists(choice, min_size=2, max_size=9), st.integers(0, 999), st.sampled_from([0.3, 0.6, 0.9]))
def test_random_networks_compute_the_same_and_are_at_a_fixed_point(
    choices: list[tuple[int, int, int]], seed: int, share: float
) -> None:
    model = lively(Random(choices), seed)
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            gone = torch.rand(module.out_channels, generator=g) < share
            module.weight.data[gone] = 0
            if module.groups == 1:
                module.weight.data[:, torch.rand(module.in_channels, generator=g) < share / 2] = 0
            if module.bias is not None and seed % 2:
                module.bias.data[gone] = 0
    found = slimmed(model, X[:, :, :5, :5])
    assert found.weights_after <= found.weights_before


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([0.2, 0.4, 0.6]))
def test_what_goes_is_just_what_no_output_depends_on(seed: int, share: float) -> None:
    """Against brute force: without biases a channel of zeros in its place changes nothing, or something."""

    def function(x: Tensor, *fc: nn.Module) -> Tensor:
        x = F.leaky_relu(fc[0](x))
        y = F.leaky_relu(fc[2](F.leaky_relu(fc[1](x))) + fc[3](x))
        return fc[5](torch.cat([F.leaky_relu(fc[4](y)), y], 1))

    sizes = (3, 5), (5, 4), (4, 6), (5, 6), (6, 3), (9, 2)
    model = lively(Calls(function, *(nn.Linear(*size, bias=False) for size in sizes)), seed)
    g = torch.Generator().manual_seed(seed)
    for layer in model.layers:
        layer.weight.data[torch.rand(layer.weight.shape, generator=g) < share] = 0
    x = torch.randn(8, 3, generator=g)
    expected = outputs(model, x)

    def depends(names: Sequence[int], channel: int) -> bool:
        """On a channel of the sum of these layers' outputs."""
        trial = Calls(function, *(nn.Linear(*size, bias=False) for size in sizes))
        trial.load_state_dict(model.state_dict())
        for name in names:
            trial.layers[name].weight.data[channel] = 0
        return not torch.equal(outputs(trial, x), expected)

    needed = {names: sum(depends(names, c) for c in range(sizes[names[0]][1])) for names in ((0,), (1,), (2, 3), (4,))}
    found = slimmed(model, x)
    for names, count in needed.items():
        for name in names:
            assert row(found, f"layers.{name}").after[0] == max(1, count), (names, str(found))


# ---- the zoo ----

ZOO = {
    "lenet5": (1, 28, 28),
    "cifar10_resnet20": (3, 32, 32),
    "shufflenetv2": (3, 64, 64),
}
LARGE = {
    "mobilenetv2": (3, 64, 64),
    "resnet18": (3, 64, 64),
    "cifar10_vgg16": (3, 32, 32),
    "densenet121": (3, 64, 64),
    "unet": (3, 32, 48),
}


@pytest.mark.parametrize("name", [*ZOO, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_a_model_of_the_zoo(name: str) -> None:
    from openwork import models

    torch.manual_seed(0)
    model = models.resolve(name, weights=None)
    g = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                tensor.data.uniform_(0.5, 1.5, generator=g)
        elif isinstance(module, nn.Conv2d):
            weight = module.weight.data
            weight /= (weight.square().sum() / len(weight)).sqrt()
            weight[torch.randperm(len(weight), generator=g)[: len(weight) // 2]] = 0
    x = torch.randn(1, *(ZOO | LARGE)[name], generator=g)
    found = slim(model, x)
    other = torch.randn(x.shape, generator=g)
    expected, ours = outputs(model, other), outputs(found.model, other)
    assert (ours - expected).abs().max() <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert type(found.model) is type(model) and found.weights_after < 0.9 * found.weights_before, str(found)
    assert sum(p.numel() for p in found.model.parameters()) < sum(p.numel() for p in model.parameters())
