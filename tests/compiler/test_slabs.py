"""Images cut into slabs of rows, one for each thread: same outputs whatever the sizes; cut where that is worth it."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import openwork
from openwork.compiler.capture import capture
from openwork.compiler.layout import Grid, Slabs
from openwork.compiler.lower import lower
from openwork.compiler.optimize import optimize


class Everything(nn.Module):
    """Strides, shortcuts, pooling, a kernel without padding, groups, concatenation, dilation, and a pixel shuffle;
    a kernel for each channel, with zeros on one side."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, 2, padding)
        self.narrow, self.wide = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 3, padding=1)
        self.shortcut, self.main = nn.Conv2d(8, 12, 1, 2), nn.Conv2d(8, 12, 3, 2, 1)
        self.out, self.beside = nn.Conv2d(12, 12, 1), nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12)
        self.each = nn.Sequential(nn.ZeroPad2d((0, 4, 1, 1)), nn.Conv2d(12, 12, (3, 5), groups=12))
        self.valid, self.head = nn.Conv2d(36, 8, 3), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.stem(x))
        x = F.silu(self.wide(self.narrow(x)) + x)
        pooled = F.avg_pool2d(F.max_pool2d(x, 3, 1, 1), 2, 2, ceil_mode=True)
        x = F.relu(self.out(F.relu(self.main(x))) + self.shortcut(x))
        x = torch.cat([self.beside(x), self.each(x), x], 1)
        return self.head(self.valid(x).mean((2, 3))), pooled, F.pixel_shuffle(self.main(pooled), 2)


@settings(max_examples=12, deadline=None)
@given(
    size=st.tuples(st.integers(18, 40), st.integers(18, 40)),
    padding=st.integers(0, 2),
    threads=st.integers(1, 5),
    isa=st.sampled_from(["auto", "base"]),
    tune=st.sampled_from(["off", "fast"]),
)
def test_outputs_are_pytorchs(size, padding, threads, isa, tune):
    torch.manual_seed(0)
    model, x = Everything(padding).eval(), torch.randn(1, 3, *size)
    engine = openwork.compile(model, x, threads=threads, isa=isa, tune=tune)
    for turn in range(2):  # what a run leaves behind must not matter to the next one
        x = torch.randn(1, 3, *size) * (1 + 10 * turn)
        with torch.no_grad():
            wanted = model(x)
        for found, right in zip(engine(x), wanted, strict=True):
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))


@pytest.mark.parametrize(("threads", "batch", "cut"), [(2, 1, True), (3, 1, True), (1, 1, False), (2, 2, False)])
def test_images_are_cut_for_several_threads(threads, batch, cut):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    engine = openwork.compile(model, torch.randn(batch, 3, 24, 24), threads=threads, tune="off")
    layers = [s for s in engine._spec.steps if s.op in ("taps", "dense")]
    assert [("slabs" in s.fields) for s in layers] == [cut, cut]
    halos = [s for s in engine._spec.steps if s.fields.get("only_halo")]
    assert len(halos) == cut  # the image itself arrives with its halo


@pytest.mark.parametrize(
    ("layer", "rows"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), [1, 1]),
        (nn.Conv2d(3, 4, 3, padding=(3, 1)), [3, 3]),
        (nn.ConvTranspose2d(3, 4, 4), [3, 3]),
        (nn.ConvTranspose2d(3, 4, 3, 2), [1, 1]),
    ],
)
def test_there_are_zeros_below_an_image_whose_readers_output_is_taller(layer, rows):
    """Images of different heights would be cut elsewhere, so both stay whole, and zeros begin below the last row."""
    lowered = lower(optimize(capture(layer.eval(), (torch.randn(1, 3, 20, 12),))), 2)
    (source, *_) = next(draft.sources for draft in lowered.drafts if draft.weights)
    assert source.grid.halo == rows


def test_small_images_are_not_cut():
    """Threads then share the images and divide the outputs."""
    rows = Slabs(2).rows
    assert rows(1, 7, 7) == 4
    assert rows(1, 4, 4) == 0
    assert rows(1, 1, 500) == 0  # tokens
    assert rows(2, 56, 56) == 0  # a batch
    assert Slabs(4).rows(1, 5, 40) == 0  # the last slab would be empty
    assert Slabs(1).rows(1, 56, 56) == 0


def test_images_on_one_grid_are_cut_alike_or_not_at_all():
    slabs, a, b = Slabs(2), Grid(1), Grid(1)
    a.need(20, 20)
    a.cut(slabs, 20, 20)
    b.need(18, 18)
    b.cut(slabs, 18, 18)
    assert (a.slab_rows, b.slab_rows) == (10, 9)
    a.merge(b)
    assert a.slab_rows == b.slab_rows == 0
