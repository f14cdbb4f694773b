"""Every operator with a native form gives PyTorch's outputs: alone, and beside others that share its input.

Cases: here and in cnn_cases.py.
"""

import cnn_cases
import pytest
import torch
import torch.nn.functional as F
from small_models import Calls, assert_agrees, compiled, left_to_torch, lively
from torch import nn

IMAGE = (6, 11, 9)
"""Channels, height, width of every case's input."""


def conv(out, kernel, **options):
    return nn.Conv2d(6, out, kernel, **options)


def does(function, *layers):
    return Calls(lambda own, x: function(*own, x), *layers)


def option_a(x):
    """The shortcut of CIFAR ResNets: every second pixel, new channels of zeros on both sides."""
    return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 4))


CONVOLUTIONS = {
    **{f"{k}x{k}": lambda k=k: conv(5, k) for k in range(1, 8)},
    **{f"{k}x{k} same": lambda k=k: conv(8, k, padding=k // 2) for k in (3, 5, 7)},
    **{
        f"stride {s} padding {p}": lambda s=s, p=p: conv(5, 3, stride=s, padding=p)
        for s in (1, 2, 3)
        for p in (0, 1, 2, 3)
    },
    "1x1 stride 2": lambda: conv(7, 1, stride=2),
    "1x1 stride 3 padded": lambda: conv(7, 1, stride=3, padding=2),
    "1x7": lambda: conv(5, (1, 7), padding=(0, 3)),
    "5x2": lambda: conv(5, (5, 2), padding=(2, 0), stride=(1, 2)),
    "even kernel": lambda: conv(5, 4, stride=2, padding=1),
    "stride over kernel": lambda: conv(5, 2, stride=5),
    "uneven stride": lambda: conv(5, 3, stride=(3, 1), padding=1),
    "dilation 2": lambda: conv(5, 3, dilation=2, padding=2),
    "dilation 3x1 stride 2": lambda: conv(5, (3, 2), dilation=(3, 1), stride=2),
    "more padding than kernel": lambda: conv(5, 3, padding=6),
    "groups 2": lambda: conv(10, 3, groups=2, padding=1),
    "groups 3 stride 2": lambda: conv(9, 3, groups=3, stride=2, padding=1),
    "depthwise": lambda: conv(6, 3, groups=6, padding=1),
    "depthwise twice as many": lambda: conv(12, 5, groups=6, stride=2, padding=2),
    "no bias": lambda: conv(16, 3, bias=False),
    "padding by name": lambda: conv(5, 5, padding="same"),
    "whole image": lambda: conv(5, (11, 9)),
    "many channels": lambda: conv(70, 3, padding=1),
    "two in a row": lambda: nn.Sequential(conv(5, 3), nn.Conv2d(5, 3, 3, stride=2, padding=1), nn.Conv2d(3, 4, 2)),
}
POOLINGS = {
    "max 2": lambda: nn.MaxPool2d(2),
    "max 3 stride 2 padded": lambda: nn.MaxPool2d(3, 2, 1),
    "max ceil": lambda: nn.MaxPool2d(2, 2, ceil_mode=True),
    "max ceil padded": lambda: nn.MaxPool2d((3, 2), (2, 3), (1, 1), ceil_mode=True),
    "max dilated": lambda: nn.MaxPool2d(3, 1, 1, dilation=2),
    "max of a conv": lambda: nn.Sequential(conv(5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "conv of a max": lambda: nn.Sequential(nn.MaxPool2d(2), conv(5, 3, padding=1)),
    "avg 2": lambda: nn.AvgPool2d(2),
    "avg 3 padded": lambda: nn.AvgPool2d(3, 2, 1),
    "avg padding not counted": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "avg ceil": lambda: nn.AvgPool2d(2, 2, ceil_mode=True),
    "avg ceil padded": lambda: nn.AvgPool2d((3, 2), (2, 3), 1, ceil_mode=True),
    "avg ceil padding not counted": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "avg divisor": lambda: nn.AvgPool2d((2, 3), divisor_override=5),
    "avg negative divisor": lambda: nn.AvgPool2d(2, divisor_override=-3),
    "avg of everything": lambda: nn.AvgPool2d((11, 9)),
    "global": lambda: nn.AdaptiveAvgPool2d(1),
    "global of a padded conv": lambda: nn.Sequential(conv(5, 3, padding=2), nn.AdaptiveAvgPool2d(1)),
    "adaptive, dividing": lambda: nn.AdaptiveAvgPool2d((11, 3)),
    "adaptive, unchanged": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((None, 9)), nn.ReLU()),
    "mean kept": lambda: does(lambda x: x.mean((-1, -2), keepdim=True)),
    "mean dropped": lambda: does(lambda c, x: c(x).mean((2, 3)), conv(5, 3)),
}
SHAPES = {
    "relu": lambda: nn.ReLU(),
    "relu6": lambda: nn.Sequential(conv(5, 1), nn.ReLU6()),
    "hardtanh": lambda: nn.Sequential(conv(5, 1), nn.Hardtanh(-0.3, 0.2)),
    "hardtanh alone": lambda: nn.Hardtanh(-0.3, 0.2),
    "clamp below": lambda: does(lambda x: x.clamp(min=0.5)),
    "clamp of clamp": lambda: does(lambda c, x: c(x).clamp(max=0.1).relu(), conv(5, 1)),
    "concat": lambda: does(lambda a, b, x: torch.cat([a(x), x, b(x)], 1), conv(5, 3, padding=1), conv(3, 5, padding=2)),
    "concat of itself": lambda: does(lambda c, x: c(torch.cat([x, x], 1)), nn.Conv2d(12, 3, 3)),
    "concat of pooled": lambda: does(lambda c, x: torch.cat([F.max_pool2d(x, 2), c(x)], 1), conv(4, 2, stride=2)),
    "option A": lambda: does(option_a),
    "option A of a conv": lambda: nn.Sequential(conv(6, 3, padding=1), does(option_a)),
    "option A added": lambda: does(lambda c, x: (c(x) + option_a(x)).relu(), conv(13, 3, stride=2, padding=1)),
    "pad, uneven": lambda: does(lambda c, x: c(F.pad(x, (1, 2, 0, 3))), conv(5, 3)),
    "pad, even": lambda: does(lambda c, x: c(F.pad(x, (2, 2, 1, 1))), conv(5, 3, padding=1)),
    "pad returned": lambda: nn.Sequential(conv(5, 3), nn.ZeroPad2d((1, 0, 2, 1))),
    "pad of channels": lambda: does(lambda c, x: c(F.pad(x, (0, 0, 0, 0, 0, 2))), nn.Conv2d(8, 3, 3, padding=1)),
    "crop": lambda: does(lambda c, x: c(x[:, 1:4, 2:-1, 3:]), nn.Conv2d(3, 5, 3, padding=1)),
    "crop of a conv": lambda: does(lambda c, x: c(x)[:, 2:, 1:7, 1:-2].relu(), conv(5, 3)),
    "stepped crop": lambda: does(lambda x: x[:, :, 1::3, ::2]),
    "slice of slice": lambda: does(lambda x: x[:, :, 1:10][:, :, ::2][:, 1:5, :, 1:]),
    "channel halves": lambda: does(lambda c, x: c(x[:, :3] + x[:, 3:]), nn.Conv2d(3, 4, 3)),
    "flatten": lambda: nn.Flatten(),
    "view": lambda: does(lambda c, x: c(x).view(x.shape[0], -1), conv(5, 3)),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(594, 7)),
    "linear layers": lambda: nn.Sequential(
        nn.MaxPool2d(5),
        nn.Flatten(),
        nn.Linear(12, 33, bias=False),
        nn.ReLU(),
        nn.Linear(33, 130),
        nn.ReLU6(),
        nn.Linear(130, 3),
    ),
    "linear after conv": lambda: nn.Sequential(conv(4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 99, 9)),
    "linear after mean": lambda: nn.Sequential(conv(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 9)),
    "dropout": lambda: nn.Sequential(nn.Dropout(), conv(3, 1), nn.Dropout2d()),
}
JOINS = {
    "bn folded": lambda: nn.Sequential(conv(5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU()),
    "bn folded, groups": lambda: nn.Sequential(conv(6, 3, groups=3), nn.BatchNorm2d(6)),
    "bn alone": lambda: nn.BatchNorm2d(6),
    "bn before conv": lambda: nn.Sequential(nn.BatchNorm2d(6), nn.ReLU(), conv(5, 3, padding=1)),
    "bn after relu": lambda: nn.Sequential(conv(5, 3), nn.ReLU(), nn.BatchNorm2d(5)),
    "bn without weights": lambda: nn.Sequential(conv(5, 3), nn.BatchNorm2d(5, affine=False)),
    "bn of a shared conv": lambda: does(lambda c, b, x: c(x) + b(c(x)), conv(5, 3), nn.BatchNorm2d(5)),
    "bn of linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(594, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.BatchNorm1d(9)
    ),
    "add left": lambda: does(lambda c, x: c(x) + x, conv(6, 3, padding=1)),
    "add right": lambda: does(lambda c, x: (x + c(x)).relu(), conv(6, 3, padding=1)),
    "add both": lambda: does(lambda a, b, x: F.relu6(a(x) + b(x)), conv(5, 3, padding=1), conv(5, 5, padding=2)),
    "add of relu": lambda: does(lambda a, b, x: a(x).relu() + b(x).relu(), conv(5, 3), conv(5, 3)),
    "add in place": lambda: does(lambda a, x: a(x).add_(x).relu_(), conv(6, 1)),
    "add to itself": lambda: does(lambda x: x + x),
    "add of pooled": lambda: does(lambda c, x: c(x) + F.avg_pool2d(x, 2), conv(6, 2, stride=2)),
    "conv used twice": lambda: does(
        lambda c, d, x: d(c(x) + x) + c(x)[:, :3], conv(6, 3, padding=1), nn.Conv2d(6, 3, 1)
    ),
    "residual blocks": lambda: does(
        lambda a, b, c, x: (lambda y: (c(y) + y).relu())((b(a(x).relu()) + x).relu()),
        conv(5, 3, padding=1),
        nn.Conv2d(5, 6, 3, padding=1),
        conv(6, 3, padding=1),
    ),
}
FAMILIES = {
    "convolutions": CONVOLUTIONS,
    "poolings": POOLINGS,
    "shapes": SHAPES,
    "joins": JOINS,
    **cnn_cases.FAMILIES,
}
CASES = {f"{family}: {name}": build for family, cases in FAMILIES.items() for name, build in cases.items()}


class Beside(nn.Module):
    """Many networks on one input."""

    def __init__(self, networks):
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, x):
        return tuple(network(x) for network in self.networks)


class Apart(Beside):
    """Many networks, each with its own input: their layouts have nothing in common but the arena."""

    def forward(self, *inputs):
        return tuple(network(x) for network, x in zip(self.networks, inputs, strict=True))


@pytest.mark.slow  # capturing each alone takes a minute; test_apart finds the same faults
@pytest.mark.parametrize("name", CASES)
def test_alone(name):
    model = lively(CASES[name](), sparsity=0.7)
    engine = compiled(model, (3, *IMAGE))
    assert left_to_torch(engine) == []
    assert_agrees(engine, model, (3, *IMAGE))


@pytest.mark.parametrize(("batch", "sparsity"), [(1, 0.0), (1, 0.8), (3, 0.0), (3, 0.8)])
@pytest.mark.parametrize("family", FAMILIES)
def test_apart(family, batch, sparsity):
    cases = FAMILIES[family]
    model = lively(Apart(build() for build in cases.values()), sparsity)
    shapes = [(batch, *IMAGE)] * len(cases)
    engine = compiled(model, *shapes)
    assert left_to_torch(engine) == []
    assert_agrees(engine, model, *shapes, names=list(cases))


@pytest.mark.parametrize(("batch", "sparsity"), [(1, 0.8), (3, 0.0)])
@pytest.mark.parametrize("family", FAMILIES)
def test_beside_others(family, batch, sparsity):
    cases = FAMILIES[family]
    model = lively(Beside(build() for build in cases.values()), sparsity)
    engine = compiled(model, (batch, *IMAGE))
    assert left_to_torch(engine) == []
    assert_agrees(engine, model, (batch, *IMAGE), names=list(cases))


@pytest.mark.parametrize("batch", [1, 3])
def test_several_inputs_and_outputs(batch):
    model = lively(
        Calls(
            lambda own, x, y: (own[0](x) + y, y, own[1](torch.cat([x, y], 1)).mean((2, 3))),
            nn.Conv2d(3, 4, 1),
            nn.Conv2d(7, 2, 3),
        )
    )
    shapes = (batch, 3, 8, 6), (batch, 4, 8, 6)
    engine = compiled(model, *shapes)
    assert left_to_torch(engine) == []
    assert_agrees(engine, model, *shapes)


@pytest.mark.parametrize("batch", [1, 3])
def test_lists_and_dicts_come_back_flat(batch):
    model = lively(Calls(lambda own, x: {"a": x.relu(), "b": [own[0](x), x]}, nn.Conv2d(3, 4, 1)))
    engine = compiled(model, (batch, 3, 5, 5))
    x = torch.randn(batch, 3, 5, 5)
    wanted = model(x)
    for ours, theirs in zip(engine(x), (wanted["a"], *wanted["b"]), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_tokens_go_through_linear_layers():
    model = lively(Calls(lambda own, x: own[1](own[0](x).relu()), nn.Linear(10, 33), nn.Linear(33, 4)), sparsity=0.5)
    engine = compiled(model, (2, 5, 10))
    assert left_to_torch(engine) == []
    assert_agrees(engine, model, (2, 5, 10))


def test_an_unused_input_is_taken_and_ignored():
    model = Calls(lambda own, x, y: x.relu())
    assert_agrees(compiled(model, (1, 2, 3, 3), (1, 5)), model, (1, 2, 3, 3), (1, 5))


def test_a_returned_input_is_a_copy():
    engine = compiled(Calls(lambda own, x: (x, x.relu())), (1, 2, 3, 3))
    x = torch.randn(1, 2, 3, 3)
    before = x.clone()
    engine(x)[0].zero_()
    assert torch.equal(x, before)
