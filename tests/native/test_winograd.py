"""Winograd's convolution is a convolution, whatever its sizes and cuts; what is not finite stays in its place."""

import math

import native_steps as steps
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.compiler import winograd
from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", steps.FLOATS)
many = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def grids(draw):
    """Batch, stride, pitch, height and width of images with shared padding."""
    h, w = draw(st.integers(1, 11)), draw(st.sampled_from([1, 2, 3, 5, 7, 8, 14, 17, 33, 70]))
    pitch = w + draw(st.integers(0, 3))
    return draw(st.integers(1, 3)), (h + draw(st.integers(0, 2))) * pitch, pitch, h, w


options = {
    "seed": seeds,
    "tile": st.sampled_from([2, 4]),
    "width": st.sampled_from([16, 32]),
    "channels": st.integers(1, 20),
    "outputs": st.integers(1, 70),
    "block": st.integers(1, 40),
    "residual": st.booleans(),
    "clamp": st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (-1.0, 1.0)]),
    "grid": grids(),
    "row_chunks": st.integers(1, 9),
    "tile_chunks": st.integers(1, 9),
}


def close(found, wanted, largest=None):
    """Within 1e-5 of the largest value: what rounding costs grows with a tile's inputs, not with one output."""
    largest = np.abs(wanted).max() if largest is None else largest
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * largest)


@every_isa
@many
@given(**options)
def test_is_the_convolution(isa, **options):
    case, weight = steps.winograd(**options)
    sums = steps.convolved(case.changed(lo=-math.inf, hi=math.inf), weight)  # a clamp hides how large they are
    close(case.run(isa), steps.convolved(case, weight), np.abs(sums).max())


@every_isa
@many
@given(
    seed=seeds,
    values=st.sampled_from([[np.nan], [np.inf], [-np.inf], [np.nan, np.inf, -np.inf]]),
    many_places=st.booleans(),
    **{name: options[name] for name in ("tile", "outputs", "grid", "row_chunks", "tile_chunks")},
)
def test_what_is_not_finite_appears_where_pytorch_has_it(isa, seed, values, many_places, **sizes):
    case, weight = steps.winograd(seed, residual=False, channels=3, **sizes)
    rng = np.random.default_rng(seed)
    inputs = int(case.arguments["out"].min())
    places = rng.choice(inputs, inputs // 3 if many_places else 2, replace=False)
    case.arena[places] = rng.choice(np.array(values, np.float32), len(places))
    batch, stride, pitch, h, w = sizes["grid"]
    found = case.run(isa)
    with torch.no_grad():
        for n in range(batch):
            begins = [n * stride + plane + case.arguments["shift"] for plane, _, _ in case.arguments["planes"][0]]
            arena = torch.from_numpy(case.arena)
            windows = [torch.as_strided(arena, (h + 2, w + 2), (pitch, 1), begin) for begin in begins]
            bias = torch.from_numpy(case.arguments["bias"][: len(weight)].copy())
            wanted = F.conv2d(torch.stack(windows)[None], torch.from_numpy(weight), bias)[0]
            for o, out in enumerate(case.arguments["out"]):
                there = torch.as_strided(torch.from_numpy(found), (h, w), (pitch, 1), int(n * stride + out))
                torch.testing.assert_close(there, wanted[o], rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("isa", steps.FLOATS)
@pytest.mark.parametrize("tile", [2, 4])
def test_infinity_under_a_zero_weight_is_nan_as_in_pytorch(isa, tile):
    case, weight = steps.winograd(tile=tile, residual=False)
    zeros = np.random.default_rng(1).random(weight.shape) < 0.3
    weight[zeros] = 0
    packed = winograd.pack(weight.reshape(len(weight), -1), case.arguments["bias"][: len(weight)], tile, 16)
    case = case.changed(**packed)
    plane = case.arguments["planes"][0][2][0] + case.arguments["shift"]
    pitch = case.arguments["grid"][2]
    case.arena[plane + 3 * pitch + 2] = np.inf
    found = case.run(isa)
    for o, out in enumerate(case.arguments["out"]):
        there = np.array([[found[out + y * pitch + x] for x in range(3)] for y in range(1, 4)])[::-1, ::-1]
        np.testing.assert_array_equal(there, np.where(zeros[o, 2], np.nan, np.copysign(np.inf, weight[o, 2])))


@every_isa
@many
@given(**options)
def test_writes_its_pixels_only(isa, **options):
    case, _ = steps.winograd(**options)
    flags = steps.inside(options["grid"])
    flags = flags[: np.flatnonzero(flags)[-1] + 1]
    written = np.zeros(len(case.arena), bool)
    for out in case.arguments["out"]:
        written[out : out + len(flags)] |= flags
    np.testing.assert_array_equal(case.run(isa)[~written], case.arena[~written])


@pytest.mark.parametrize("isa", steps.FAST)
@pytest.mark.parametrize("tile", [2, 4])
def test_every_kernel_gives_what_the_naive_reference_gives(isa, tile):
    for tiles in range(1, 15):
        case, _ = steps.winograd(tiles, tile, 32, grid=(1, 400, 70, 4, tile * tiles), block=tiles)
        close(case.run(isa), case.run("reference"))


@pytest.mark.parametrize("isa", steps.FAST)
@pytest.mark.parametrize("name", ["winograd", "winograd_2", "winograd_act"])
def test_neither_threads_nor_cuts_change_a_bit(isa, name):
    case = steps.every_case()[name]
    wanted = case.changed(row_chunks=1).run(isa)
    for threads in (1, 2, 3):
        for cuts in ((1, 1), (1, 3), (2, 1), (5, 2)):
            for block in (1, 4, 100):
                cut = case.changed(row_chunks=cuts[0], tile_chunks=cuts[1], block=block)
                np.testing.assert_array_equal(cut.run(isa, threads), wanted)


@pytest.mark.parametrize("m", [2, 4])
def test_a_row_comes_back_from_its_values(m):
    """The definition, in float64: y = A (G g * B d), with A and B from the points."""
    rng = np.random.default_rng(m)
    g, d = rng.standard_normal(3), rng.standard_normal(m + 2)
    points = winograd.POINTS[m]
    polynomial = np.poly1d(points, r=True)
    to = np.zeros((m + 2, m + 2))
    for i, p in enumerate(points):
        to[i, : m + 1] = (polynomial / np.poly1d([p], r=True))[0].coeffs[::-1]
    to[-1] = polynomial.coeffs[::-1]
    back = np.array([[*(p**k for p in points), float(k == m - 1)] for k in range(m)])
    found = back @ ((winograd.transform(m) @ g) * (to @ d))
    np.testing.assert_allclose(found, np.convolve(d, g[::-1], "valid"), atol=1e-12)


def test_a_wrong_weight_is_seen():
    case, weight = steps.winograd()
    weight[0, 0, 0, 0] *= 1.01
    with pytest.raises(AssertionError):
        close(case.run(_native.isas()[0]), steps.convolved(case, weight))
