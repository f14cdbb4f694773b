"""Depthwise layers become a step of their own where it does less than taps; cut into slabs or not, saved and loaded."""

import math

import cnn_cases
import pytest
import torch
from small_models import assert_agrees, compiled, lively
from test_operators import Apart
from torch import nn

import openwork

SHAPE = (1, 6, 11, 9)


def kernels(engine):
    """The families of the layers' kernels."""
    return [row["kernel"].split("_")[0] for row in engine.explain(repeats=1).rows if row["op"] == "conv"]


@pytest.mark.parametrize("name", cnn_cases.STEPS)
def test_is_a_step_of_its_own(name):
    found = kernels(compiled(lively(cnn_cases.STEPS[name]()), SHAPE))
    assert "depthwise" in found


@pytest.mark.parametrize("name", cnn_cases.TAPS)
def test_is_taps_where_these_do_less_or_the_step_does_not_fit(name):
    found = kernels(compiled(lively(cnn_cases.TAPS[name]()), SHAPE))
    assert "depthwise" not in found and "taps" in found


@pytest.mark.parametrize("size", [(40, 34), (61, 150)])
@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 1), (3, 1), (2, 3)])
def test_outputs_are_pytorchs_on_images_that_threads_share(threads, batch, size):
    cases = {**cnn_cases.DEPTHWISE, **{f"dense, {name}": build for name, build in cnn_cases.ONE_SIDE.items()}}
    model = lively(Apart(build() for build in cases.values()))
    shapes = [(batch, 6, *size)] * len(cases)
    engine = compiled(model, *shapes, threads=threads)
    steps = [step for step in engine.artifact.program.steps if step.op == "depthwise"]
    cut = [all("slabs" in step.fields[which] for which in "xy") for step in steps]
    assert len(steps) > len(cnn_cases.STEPS) and any(cut) == (threads > 1 and batch == 1)
    assert_agrees(engine, model, *shapes, names=list(cases))


def test_explains_itself_and_comes_back_from_a_file(tmp_path):
    torch.manual_seed(0)
    layers = [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 16, (3, 5), 2, (1, 2), groups=8),
        nn.SiLU(),
        nn.Conv2d(16, 4, 1),
    ]
    x = torch.randn(1, 3, 30, 31)
    engine = openwork.compile(nn.Sequential(*layers).eval(), x, threads=2, tune="fast")
    (row,) = (row for row in engine.explain(3).rows if row["kernel"].startswith("depthwise"))
    assert row["kernel"] == f"depthwise_f32_{engine.isa}_silu" and row["op"] == "conv" and row["shape"] == "1x16x15x16"
    assert row["taps"] == row["weights"] == row["nonzero"] == 16 * 15 and row["sparsity"] == 0
    assert row["multiply_adds"] == 16 * 15 * 15 * 16 and row["tried"] == []
    assert row["gflops"] == pytest.approx(2 * row["multiply_adds"] / row["microseconds"] / 1e3, rel=0.01)
    assert row["share_of_peak"] > 0 and row["why"] == "one kernel fits: every weight of each plane"
    assert not any(step.op == "clear" for step in engine.artifact.program.steps[1:])
    engine.save(tmp_path / "model.openwork")
    loaded = openwork.load(tmp_path / "model.openwork", threads=2)
    assert torch.equal(loaded(x), engine(x)) and kernels(loaded) == kernels(engine)
    for threads in (1, 3):
        torch.testing.assert_close(openwork.load(tmp_path / "model.openwork", threads=threads)(x), engine(x))
    before = engine(x)
    engine.retune()
    torch.testing.assert_close(engine(x), before)


def test_needs_no_copies_phases_or_halos():
    """What taps would need for strides and slabs."""
    layers = [
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8),
        nn.Conv2d(8, 8, 5, 1, 2, groups=8),
        nn.Conv2d(8, 4, 1),
    ]
    engine = compiled(nn.Sequential(*layers), (1, 3, 48, 48), threads=2)
    assert [step.op for step in engine.artifact.program.steps].count("copy") == 2  # of the input and the output
    assert kernels(engine).count("depthwise") == 2


def test_as_few_weights_as_a_share_of_them_say(monkeypatch):
    layer = nn.Conv2d(6, 6, 4, groups=6)
    for zeros, wanted in ((48, "depthwise"), (49, "taps")):
        layer.weight.data.fill_(1.0).view(-1)[:zeros] = 0
        assert kernels(compiled(nn.Sequential(nn.MaxPool2d(2), layer), SHAPE)) == [wanted]
    assert math.prod(layer.weight.shape) == 96
