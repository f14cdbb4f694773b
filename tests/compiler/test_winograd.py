"""Winograd's convolution in whole networks: offered where it is one, right wherever taken, and counted honestly."""

import pytest
import torch
from small_models import Calls, winograd_everywhere
from torch import nn

import openwork
from openwork.compiler import candidates
from openwork.compiler.capture import capture
from openwork.compiler.lower import lower
from openwork.compiler.optimize import optimize
from openwork.engine import _native
from openwork.models import input_shape, resolve

ISA = _native.isas()[0]


@pytest.fixture(params=[2, 4])
def everywhere(request, monkeypatch):
    """Tiles of m x m outputs wherever they are possible, whatever the clock would say."""
    winograd_everywhere(monkeypatch, request.param)
    return request.param


def kernels_of(engine):
    return [row["kernel"] for row in engine.explain(repeats=1).rows if row["weights"]]


NETWORKS = {
    "odd sizes, batch": (
        nn.Sequential(nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 33, 3, padding=1)),
        (3, 3, 13, 9),
    ),
    "one pixel": (nn.Conv2d(4, 5, 3, bias=False), (2, 4, 3, 3)),
    "one row": (nn.Conv2d(4, 5, 3, padding=(0, 1)), (2, 4, 3, 9)),
    "no padding": (nn.Conv2d(6, 10, 3), (1, 6, 11, 18)),
    "much padding": (nn.Conv2d(6, 10, 3, padding=2), (2, 6, 7, 6)),
    "uneven padding": (nn.Conv2d(6, 10, 3, padding=(0, 1)), (2, 6, 7, 6)),
    "zeros on one side": (nn.Sequential(nn.ZeroPad2d((2, 0, 0, 3)), nn.Conv2d(6, 10, 3)), (2, 6, 7, 6)),
    "residual": (Calls(lambda own, x: (own[0](x) + x).relu(), nn.Conv2d(17, 17, 3, padding=1)), (2, 17, 8, 7)),
    "concatenation": (
        Calls(
            lambda own, x: own[1](torch.cat([x, own[0](x)], 1)),
            nn.Conv2d(5, 6, 3, padding=1),
            nn.Conv2d(11, 9, 3, padding=1),
        ),
        (1, 5, 14, 14),
    ),
    "activation": (nn.Sequential(nn.Conv2d(5, 40, 3, padding=1), nn.SiLU()), (1, 5, 15, 21)),
    "a slope for each channel": (nn.Sequential(nn.Conv2d(5, 40, 3, padding=1), nn.PReLU(40)), (1, 5, 15, 21)),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
def test_is_pytorchs_convolution(everywhere, name, threads):
    model, shape = NETWORKS[name]
    torch.manual_seed(0)
    engine = openwork.compile(model.eval(), torch.randn(shape), threads=threads, tune="off")
    assert all(k.startswith(f"winograd_f32_{everywhere}x{everywhere}x") for k in kernels_of(engine))
    x = torch.randn(shape)
    with torch.no_grad():
        wanted = model(x)
    torch.testing.assert_close(engine(x), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "vgg16", "unet", "edsr"])
def test_keeps_the_promised_accuracy_through_deep_networks(everywhere, name):
    torch.manual_seed(0)
    model = resolve(name)
    engine = openwork.compile(model.eval(), torch.randn(input_shape(name)), threads=2, tune="off")
    assert any(k.startswith("winograd") for k in kernels_of(engine))
    assert engine.provenance["max_relative_error"] < 1e-4


def offered(model, shape):
    """Native steps among the candidates of the first layer."""
    lowered = lower(optimize(capture(model.eval(), (torch.randn(shape),))))
    at = next(i for i, draft in enumerate(lowered.drafts) if draft.weights)
    draft, base = lowered.drafts[at], lowered.program.steps[at]
    assert candidates.first(draft, base, 2, ISA).op != "winograd", "never without a clock"
    return {choice.op for choice in candidates.kernels(draft, base, 2, ISA)}


def test_is_offered_where_it_is_a_convolution_of_3x3_without_stride_dilation_or_groups():
    assert "winograd" in offered(nn.Conv2d(32, 32, 3, padding=1), (1, 32, 28, 28))
    for other in (
        nn.Conv2d(32, 32, 3, padding=1, stride=2),
        nn.Conv2d(32, 32, 3, padding=2, dilation=2),
        nn.Conv2d(32, 32, 3, padding=1, groups=2),
        nn.Conv2d(32, 32, 1),
        nn.Conv2d(32, 32, 5, padding=2),
        nn.Conv2d(32, 32, (1, 9), padding=(0, 4)),
    ):
        assert "winograd" not in offered(other, (1, 32, 28, 28)), other


def test_is_not_offered_where_sparsity_saves_more():
    layer = nn.Conv2d(32, 32, 3, padding=1)
    layer.weight.data[:, torch.rand(32) < 0.9] = 0
    assert "winograd" not in offered(layer, (1, 32, 28, 28))


def test_the_clock_compares_it():
    torch.manual_seed(0)
    engine = openwork.compile(nn.Conv2d(32, 32, 3, padding=1), torch.randn(1, 32, 28, 28), threads=1)
    kernels = {tried["kernel"].split("_")[0] for row in engine.explain(repeats=1).rows for tried in row["tried"]}
    assert {"winograd", "dense"} <= kernels


def test_counts_the_products_that_it_does(everywhere):
    m = everywhere
    explained = openwork.compile(
        nn.Conv2d(8, 16, 3, padding=1), torch.randn(2, 8, 9, 8), threads=1, tune="off"
    ).explain(3)
    row = next(row for row in explained.rows if row["weights"])
    tiles = 2 * -(-9 // m) * -(-8 // m)
    assert row["multiply_adds"] == tiles * (m + 2) ** 2 * 8 * 16
    done, useful = row["multiply_adds"], 2 * 9 * 8 * 9 * 8 * 16
    peak = 1e9 * explained.totals["peak_gflops"]
    assert row["gflops"] == pytest.approx(2 * useful / row["microseconds"] / 1e3, rel=0.01)
    assert row["share_of_peak"] == pytest.approx(2e6 * done / row["microseconds"] / peak, rel=0.01)
    assert "do fewer multiply-adds than their layers are defined by" in str(explained)


def test_an_artifact_is_retuned(everywhere):
    model = nn.Conv2d(8, 16, 3, padding=1)
    x = torch.randn(1, 8, 30, 30)
    engine = openwork.compile(model, x, threads=1, tune="off")
    before = engine(x)
    engine.retune()
    assert kernels_of(engine)[0].startswith("winograd") and torch.equal(engine(x), before)
