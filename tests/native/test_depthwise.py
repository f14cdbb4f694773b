"""A depthwise convolution is PyTorch's, with zeros around the image as many as wanted on each side, whatever the sizes,
cuts and buffers; what is not finite appears where PyTorch has it."""

import math

import native_steps as steps
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps.strategies import depthwise_windows

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", steps.FLOATS)
many = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)
windows = depthwise_windows([(3, 3), (5, 5), (1, 5), (7, 3), (1, 1), (15, 15)])
ACTS = {None: lambda x: x, "silu": F.silu, "hardswish": F.hardswish}


def convolved(case, x):
    """What must come out of images [N, C, H, W], C the number of outputs, in float64."""
    a = case.arguments
    weight = torch.from_numpy(a["weight"].reshape(-1, 1, *a["kernel"])).double()
    inputs, outputs = a["size"][:2], a["size"][2:]
    reach = [(n - 1) * a["stride"] + k for n, k in zip(outputs, a["kernel"], strict=True)]  # of all windows
    behind = [max(0, r - b - n) for r, b, n in zip(reach, a["before"], inputs, strict=True)]
    (top, left), (below, right) = a["before"], behind
    padded = F.pad(torch.from_numpy(x).double(), (left, right, top, below))
    y = F.conv2d(padded, weight, torch.from_numpy(a["bias"]).double(), a["stride"], groups=len(weight))
    y = y[:, :, : outputs[0], : outputs[1]]
    return ACTS[a.get("act", [None])[0]](torch.clamp(y, a["lo"], a["hi"])).numpy()


def inputs_of(case):
    n, planes = case.arguments["batch"], len(case.arguments["x"]["planes"])
    return steps.read((n, planes, *case.arguments["size"][:2]), steps.where(case, "x"), case.arguments, "x")


def check(case, found):
    """The outputs are the convolution, and nothing else was written."""
    wanted = convolved(case, inputs_of(case))
    pixels = steps.read(wanted.shape, steps.where(case, "y", found), case.arguments, "y")
    np.testing.assert_allclose(pixels, wanted, rtol=1e-5, atol=1e-5)
    before = np.concatenate([case.arena, *case.buffers])
    steps.place(pixels, steps.where(case, "y", before), case.arguments, "y")
    np.testing.assert_array_equal(found, before)


@every_isa
@many
@given(
    seed=seeds,
    window=windows,
    each=st.integers(1, 3),
    external=st.tuples(st.booleans(), st.booleans()),
    clamp=st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (0.0, 6.0), (-math.inf, -0.5), (-1.0, 1.0)]),
    act=st.sampled_from([None, ["silu"], ["hardswish"]]),
    threads=st.integers(1, 3),
)
def test_is_the_convolution_and_writes_its_pixels_only(isa, seed, window, each, external, clamp, act, threads):
    case = steps.depthwise(seed, **window, each=each, external=external, clamp=clamp, act=act)
    check(case, case.run(isa, threads))


@every_isa
@many
@given(
    seed=seeds,
    window=windows,
    count=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    act=st.sampled_from([None, ["silu"]]),
    threads=st.integers(1, 3),
)
def test_rows_are_read_from_whatever_slab_they_lie_in(isa, seed, window, count, act, threads):
    window["shape"] = window["shape"][1:]
    case, target, x = steps.slab_depthwise(seed, **window, count=count, act=act)
    wanted = convolved(case, x[None])[0]
    found, expected = case.run(isa, threads), case.arena.copy()
    for (rows, pixels), (_, computed) in zip(target.pixels(expected), target.pixels(found), strict=True):
        np.testing.assert_allclose(computed, wanted[:, rows], rtol=1e-5, atol=1e-5)
        pixels[...] = computed
    np.testing.assert_array_equal(found, expected)


@every_isa
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (7, 7), (11, 4), (13, 13), (15, 15), (1, 15), (15, 1)])
def test_wide_images_are_worked_on_in_strips_and_tall_ones_in_blocks(isa, stride, kernel):
    """Blocks hold few rows of wide images, down to those that one output reads."""
    before = tuple(k // 2 for k in kernel)
    for seed, size in enumerate(((9, 300), (20, 129), (3, 257), (90, 17))):
        out = tuple(-(-n // stride) for n in size)
        case = steps.depthwise(seed, (1, 2, *size), out, kernel, stride, before)
        check(case, case.run(isa))


@every_isa
@pytest.mark.parametrize("stride", [1, 2])
def test_every_width_about_the_end_of_a_strip(isa, stride):
    """Strips end after 128 columns, which are 64 outputs of a stride of 2."""
    for columns in range(128 // stride - 17, 128 // stride + 19):
        case = steps.depthwise(columns, (1, 1, 4 * stride, columns * stride), (4, columns), (3, 5), stride, (1, 2))
        check(case, case.run(isa))


@every_isa
@pytest.mark.parametrize("kernel", [(3, 3), (5, 5), (2, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_every_number_of_rows_in_a_tile(isa, kernel, stride):
    for rows in (*range(1, 18), 40):
        case = steps.depthwise(rows, (2, 2, rows * stride, 9), (rows, 9), kernel, stride, (1, 1))
        check(case, case.run(isa))


@every_isa
def test_outputs_that_see_nothing_but_zeros_are_the_bias(isa):
    case = steps.depthwise(0, (1, 2, 4, 5), (9, 200), (3, 5), 1, (6, 150))
    check(case, case.run(isa))
    far = case.changed(before=[2**24 - 1, 2**24 - 1])
    y = steps.read((1, 2, 9, 200), far.run(isa), far.arguments, "y")
    np.testing.assert_array_equal(y, np.broadcast_to(case.arguments["bias"].reshape(1, 2, 1, 1), y.shape))


@every_isa
@many
@given(
    seed=seeds,
    window=windows,
    each=st.integers(1, 2),
    values=st.sampled_from([[np.nan], [np.inf], [-np.inf], [np.nan, np.inf, -np.inf]]),
    zeros=st.booleans(),
)
def test_what_is_not_finite_appears_where_pytorch_has_it(isa, seed, window, each, values, zeros):
    """Also under weights of zero, which are multiplied: infinity becomes NaN."""
    rng = np.random.default_rng(seed)
    x = steps.f32(window["shape"], rng)
    places = rng.choice(x.size, 1 + x.size // 20, replace=False)
    x.reshape(-1)[places] = rng.choice(np.array(values, np.float32), len(places))
    case = steps.depthwise(seed, **window, each=each, x=x)
    if zeros:
        weight = case.arguments["weight"]
        weight[rng.random(weight.shape) < 0.4] = 0
    check(case, case.run(isa))


@every_isa
def test_an_infinite_weight_makes_nan_of_padding_as_in_pytorch(isa):
    case = steps.depthwise(0, (1, 1, 5, 6), (5, 6), (3, 3), 1, (1, 1))
    case.arguments["weight"][0] = math.inf
    check(case, case.run(isa))
    y = steps.read((1, 1, 5, 6), case.run(isa), case.arguments, "y")
    assert np.isnan(y[0, 0, 0]).all() and np.isinf(y[0, 0, 1:, 1:]).all()


@every_isa
def test_each_plane_has_a_slope(isa):
    case = steps.depthwise(each=2)
    slope = np.linspace(-1, 1, 6, dtype=np.float32)
    plain, together = case.run(isa), case.changed(act=["leaky_relu"], slope=slope).run(isa)
    shape = (2, 6, 5, 4)
    x, y = (steps.read(shape, values, case.arguments, "y") for values in (plain, together))
    np.testing.assert_array_equal(y, np.where(x < 0, x * slope.reshape(1, 6, 1, 1), x))


@every_isa
def test_the_kernel_is_named(isa):
    case = steps.depthwise()
    for changed, name in ((case, f"depthwise_f32_{isa}"), (case.changed(act=["silu"]), f"depthwise_f32_{isa}_silu")):
        program = _native.Program(len(case.arena), [], 1, isa)
        changed.add(program)
        assert program.kernel_name(0) == name


@every_isa
def test_a_wrong_weight_is_seen(isa):
    case = steps.depthwise()
    found = case.run(isa)
    case.arguments["weight"][4] *= 1.001
    with pytest.raises(AssertionError):
        check(case, found)


@every_isa
def test_a_wrong_row_is_seen(isa):
    case, target, x = steps.slab_depthwise(before=(0, 0))
    wanted = convolved(case.changed(before=[1, 0]), x[None])[0]
    rows, pixels = next(target.pixels(case.run(isa)))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(pixels, wanted[:, rows], rtol=1e-3, atol=1e-3)
