"""Convolutions of circulant blocks in three parts: the same outputs, found through batch norm, taken by the clock."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import openwork
from openwork.compiler import compile as compiling
from openwork.compiler.capture import capture
from openwork.compiler.frequencies import in_frequencies
from openwork.compiler.lower import lower
from openwork.compiler.optimize import optimize
from openwork.compiler.tune import tune
from openwork.constraints.circulant import Circulant
from openwork.errors import CompileError
from openwork.formats.artifact import Artifact


def conv(inputs: int, out: int, block: int, kernel: int = 3, **more: object) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, out, kernel, **more)  # type: ignore[arg-type]
    layer.weight.data = Circulant(block=block).project(layer.weight.data)
    return layer


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm that scales, negatively too, and shifts."""
    layer = nn.BatchNorm2d(channels)
    layer.weight.data = torch.randn(channels)
    layer.bias.data = torch.randn(channels)
    layer.running_mean.normal_()  # type: ignore[union-attr]
    layer.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return layer


class Residual(nn.Module):
    """An addition and an activation that are fused into the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv(16, 16, 8, padding=1), norm(16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


def graph_of(model: nn.Module, x: torch.Tensor):  # type: ignore[no-untyped-def]
    return optimize(capture(model.eval(), (x,)))


MODELS = {
    "plain": lambda: conv(16, 32, 4, padding=1),
    "block of 16": lambda: conv(32, 48, 16, padding=1),
    "no bias": lambda: conv(16, 16, 8, bias=False),
    "1x1": lambda: conv(16, 32, 8, kernel=1),
    "stride and dilation": lambda: conv(16, 16, 4, stride=2, padding=2, dilation=2),
    "padding of one side": lambda: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), conv(16, 16, 8, stride=2)),
    "batch norm and clamp": lambda: nn.Sequential(conv(16, 32, 8), norm(32), nn.ReLU6()),
    "activation": lambda: nn.Sequential(conv(16, 16, 8), nn.SiLU()),
    "a slope for each channel": lambda: nn.Sequential(conv(16, 16, 8), nn.PReLU(16, 0.1)),
    "residual": Residual,
}


@pytest.mark.parametrize("name", MODELS)
def test_outputs_are_as_in_pytorch(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    inputs = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
    x = torch.randn(2, inputs, 9, 10)
    graph = in_frequencies(graph_of(model, x))
    assert graph is not None
    assert sum(n.op == "conv" for n in graph) == 3
    spec, _ = tune(lower(graph, 1), 1, "auto", "off", lambda done, total: None)
    engine = openwork.Engine(Artifact(spec, (), {}), 1, "auto")
    with torch.no_grad():
        expected = model(x)
    assert (engine(x) - expected).abs().max() <= 2e-5 * expected.abs().max()


def test_the_graph_in_words() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(8, 16, 4, padding=1, stride=2), nn.ReLU())
    before = graph_of(model, torch.randn(1, 8, 6, 6))
    (node,) = (n for n in before if n.op == "conv")
    after = in_frequencies(before)
    assert after is not None
    into, products, back = (n for n in after if n.op == "conv")
    assert [into.name, products.name, back.name] == [f"{node.name}.into", f"{node.name}.products", node.name]
    assert [n.shape for n in (into, products, back)] == [(1, 8, 6, 6), (1, 16, 3, 3), (1, 16, 3, 3)]
    shapes = [after.constant(n, "weight").shape for n in (into, products, back)]
    assert shapes == [(8, 8, 1, 1), (16, 4, 3, 3), (16, 16, 1, 1)]
    assert products["groups"] == 2 and products["stride"] == (2, 2) and products["padding"] == (1, 1)
    assert back.lo == 0 and products.plain and into.plain
    assert np.count_nonzero(after.constant(into, "weight")[:, :4]) <= 4 * 4  # a channel's block, and no other


def test_products_are_two_in_b() -> None:
    """Half of the first group is zero: two frequencies are real."""
    torch.manual_seed(0)
    for block in (4, 8, 16):
        after = in_frequencies(graph_of(conv(64, 64, block), torch.randn(1, 64, 5, 5)))
        assert after is not None
        (products,) = (n for n in after if n.name.endswith("products"))
        nonzero = np.count_nonzero(after.constant(products, "weight"))
        assert nonzero == 64 * 64 * 9 * (2 * block - 2) // block**2


@pytest.mark.parametrize(
    "model",
    [
        nn.Conv2d(16, 16, 3),
        nn.Conv2d(16, 16, 3, groups=16),
        conv(16, 18, 4),
        conv(12, 16, 6),
    ],
    ids=["dense", "depthwise", "edges", "a block without a kernel"],
)
def test_other_layers_are_left_alone(model: nn.Module) -> None:
    channels = next(m for m in model.modules() if isinstance(m, nn.Conv2d)).in_channels
    assert in_frequencies(graph_of(model, torch.randn(1, channels, 6, 6))) is None


def test_zeros_alone_are_nothing_to_transform() -> None:
    layer = conv(16, 16, 8)
    torch.nn.init.zeros_(layer.weight)
    assert in_frequencies(graph_of(layer, torch.randn(1, 16, 6, 6))) is None


def test_the_last_part_keeps_the_name_that_reports_go_by() -> None:
    torch.manual_seed(0)
    graph = in_frequencies(graph_of(nn.Sequential(conv(16, 16, 8)), torch.randn(1, 16, 6, 6)))
    assert graph is not None
    assert [n.source for n in graph if n.op == "conv"] == ["0.into", "0.products", "0"]


def test_one_number_that_differs_is_seen() -> None:
    torch.manual_seed(0)
    layer = conv(16, 16, 8)
    with torch.no_grad():
        layer.weight[13, 11, 1, 2] += 1e-3
    # rows of 8 do not fit any more, nor those of 4, which are parts of them
    assert in_frequencies(graph_of(layer, torch.randn(1, 16, 6, 6))) is None


def test_the_clock_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(16, 16, 8), nn.ReLU(), conv(16, 16, 8)).eval()
    x = torch.randn(1, 16, 8, 8)
    for choice, convolutions in ((0, 2), (1, 6)):
        monkeypatch.setattr(compiling, "_faster", lambda *engines, choice=choice: engines[choice])
        seen: list[float] = []
        engine = openwork.compile(
            model, x, threads=1, progress=lambda done, total, seen=seen: seen.append(done / total)
        )
        assert sum(row["op"] == "conv" for row in engine.explain(1).rows) == convolutions
        assert all(a <= b for a, b in pairwise(seen)) and seen[-1] == 1
        torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)


def test_a_transform_that_fails_costs_nothing_but_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model, x, engine_of = conv(16, 16, 8).eval(), torch.randn(1, 16, 8, 8), compiling._engine

    def failing(graph, *rest, **more):  # type: ignore[no-untyped-def]
        if any(node.name.endswith(".into") for node in graph):
            raise CompileError("outputs differ")
        return engine_of(graph, *rest, **more)

    monkeypatch.setattr(compiling, "_engine", failing)
    engine = openwork.compile(model, x, threads=1)
    assert sum(row["op"] == "conv" for row in engine.explain(1).rows) == 1


def test_without_a_clock_layers_stay_as_they_are() -> None:
    engine = openwork.compile(conv(16, 16, 8).eval(), torch.randn(1, 16, 8, 8), threads=1, tune="off")
    assert sum(row["op"] == "conv" for row in engine.explain(1).rows) == 1
