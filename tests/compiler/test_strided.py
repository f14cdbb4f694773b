"""Layers without zeros read with a stride where their input lies, without phases: whole images, and slabs of them."""

import itertools

import pytest
import torch
from small_models import assert_agrees, compiled, lively
from torch import nn

import openwork

STRIDES = [(2, 2), (2, 1), (1, 2), (3, 2), (3, 1)]
KERNELS = [(1, 1), (3, 3), (5, 5), (7, 3), (2, 4)]


class Between(nn.Module):
    """Strided layers of one image, with a layer on each side whose taps want its padding to be zero."""

    def __init__(self, layers):
        super().__init__()
        self.before = nn.Conv2d(3, 16, 3, padding=1)
        self.layers = nn.ModuleList(layers)
        self.after = nn.ModuleList(nn.Conv2d(layer.out_channels, 4, 3, padding=1) for layer in self.layers)

    def forward(self, x):
        x = self.before(x).relu()
        return tuple(after(layer(x).relu()) for layer, after in zip(self.layers, self.after, strict=True))


def strided(**options):
    return [
        nn.Conv2d(16, 24, kernel, stride, tuple(k // 2 for k in kernel), **options)
        for stride in STRIDES
        for kernel in KERNELS
    ]


def steps(engine, op):
    return [step for step in engine.artifact.program.steps if step.op == op]


@pytest.mark.parametrize("size", [(14, 14), (29, 34), (57, 23)])
@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 1), (3, 1), (2, 3)])
def test_outputs_are_pytorchs(threads, batch, size):
    torch.manual_seed(0)
    model = lively(Between([*strided(), nn.Conv2d(16, 32, 3, 2, 2, dilation=2), nn.Conv2d(16, 32, 3, 2, 1, groups=2)]))
    shapes = [(batch, 3, *size)]
    engine = compiled(model, *shapes, threads=threads)
    direct = [step for step in steps(engine, "dense") if step.fields["step"] == 2]
    assert len(direct) >= 15  # whatever runs the layers of stride 1
    cut = ["slabs" in step.fields for step in direct]
    assert any(cut) == (threads > 1 and batch == 1)
    assert_agrees(engine, model, *shapes)


def test_slabs_whose_rows_do_not_match_are_read_farther_on():
    """14 rows in slabs of 7, their 7 outputs in slabs of 4: the second slab begins a row later."""
    torch.manual_seed(0)
    model = lively(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1)))
    engine = compiled(model, (1, 3, 14, 14), threads=2)
    (step,) = (s for s in steps(engine, "dense") if s.fields["step"] == 2)
    pitch = step.fields["x_pitch"] // 2
    assert step.fields["slabs"][2] == 4 and step.fields["x_shift"] == (2 * 4 - 7) * pitch
    assert_agrees(engine, model, (1, 3, 14, 14))


def test_images_are_split_into_phases_only_for_layers_with_many_zeros():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 4, 1)]
    for sparsity, phases in ((0.0, 0), (0.3, 0), (0.9, 4)):
        engine = compiled(lively(nn.Sequential(*layers), sparsity), (1, 3, 18, 18), threads=1)
        split = [s.fields.get("together", 1) for s in steps(engine, "copy") if s.fields["step"] == [2, 2]]
        assert sum(split) == phases


def test_a_residual_and_an_activation_come_along():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(3, 16, 1, 2)
            self.last = nn.Conv2d(16, 16, 3, 2, 1)

        def forward(self, x):
            y = nn.functional.silu(self.first(x) + self.second(x))
            return nn.functional.hardswish(self.last(y))

    torch.manual_seed(0)
    model = lively(Residual())
    # of 28 rows the second slabs' inputs begin where they do in the first ones, of 14 and 27 they do not
    for threads, size in itertools.product((1, 2, 3), ((40, 31), (28, 28), (14, 14), (27, 30))):
        engine = compiled(model, (1, 3, *size), threads=threads)
        assert_agrees(engine, model, (1, 3, *size))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_residual_lies_where_the_output_does_not_where_a_slabs_input_is_read(threads):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.before = nn.Conv2d(3, 16, 3, padding=1)
            self.first, self.second = nn.Conv2d(16, 16, 3, 2, 1), nn.Conv2d(16, 16, 1, 2)

        def forward(self, x):
            x = self.before(x).relu()
            return self.second(x) + self.first(x).relu()

    torch.manual_seed(0)
    model = lively(Block())
    engine = compiled(model, (1, 3, 14, 14), threads=threads)
    found = [s for s in steps(engine, "dense") if s.fields["step"] == 2 and s.fields["residual"]]
    assert len(found) == 1 and bool(found[0].fields["x_shift"]) == (threads == 2)
    assert_agrees(engine, model, (1, 3, 14, 14))


def test_tuned_layers_agree_and_come_back_from_a_file(tmp_path):
    torch.manual_seed(0)
    model = lively(Between(strided()[:10]))
    x = torch.randn(1, 3, 31, 28)
    engine = openwork.compile(model, x, threads=2, tune="fast")
    engine.save(tmp_path / "a.openwork")
    loaded = openwork.load(tmp_path / "a.openwork", threads=2)
    for ours, again, theirs in zip(engine(x), loaded(x), model(x), strict=True):
        assert torch.equal(ours, again)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-4, atol=1e-4)
