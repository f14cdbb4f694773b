"""Activations are as exact as they say, over every exponent, treat NaN and infinity as PyTorch does, and keep the zeros
around images zero, whether alone or behind a layer."""

import math

import native_steps as steps
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps.strategies import grids

from openwork.engine import _native


def exact_gelu_tanh(x):
    return x * torch.sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))


def exact_mish(x):
    return torch.where(x > 300, x, x * torch.tanh(torch.log1p(x.clamp(max=300).exp())))


CASES = {  # name, parameters -> exact function, largest relative error, floor of what it is relative to
    "clamp": ((-0.5, 2.0), lambda x: x.clamp(-0.5, 2), 0, 1),
    "leaky_relu": ((0.1,), lambda x: F.leaky_relu(x, 0.1), 1e-7, 1e-30),
    "elu": ((1.5, 1.05, 0.7), lambda x: torch.where(x > 0, 1.05 * x, 1.05 * 1.5 * torch.expm1(0.7 * x)), 2e-7, 1e-30),
    "sigmoid": ((), torch.sigmoid, 2e-7, 1e-3),
    "tanh": ((), torch.tanh, 2e-7, 1e-30),
    "silu": ((), F.silu, 2e-7, 1e-3),
    "erf": ((), torch.erf, 2e-7, 1e-30),
    "gelu": ((), F.gelu, 2.1e-7, "x"),  # 2.03e-7 where a compiler that does not optimize adds and multiplies apart
    "gelu_tanh": ((), exact_gelu_tanh, 2e-7, "x"),
    "hardswish": ((), F.hardswish, 2e-7, "x"),
    "mish": ((), exact_mish, 2e-7, "x"),
    "softplus": ((2.0, 20.0), lambda x: torch.where(2 * x > 20, x, torch.log1p((2 * x).exp()) / 2), 3e-7, 1e-30),
    "exp": ((), torch.exp, 2e-7, 1.2e-38),
    "abs": ((), torch.abs, 0, 1),
    "square": ((), torch.square, 1e-7, 1.2e-38),
    "sqrt": ((), torch.sqrt, 1e-7, 1.2e-38),
    "rsqrt": ((), torch.rsqrt, 1.2e-7, 1.2e-38),
    "reciprocal": ((), torch.reciprocal, 1e-7, 1.2e-38),
}
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 90.0, -90.0, -200.0, 3e38, -3e38, 1e20, -1e20], np.float32)


def every_exponent() -> np.ndarray:
    """Numbers of both signs from the smallest normal to the largest, many between -100 and 100, and an odd count."""
    rng = np.random.default_rng(0)
    wide = 2.0 ** rng.uniform(-126, 127.9, 20_000)
    near = rng.uniform(0, 100, 200_000) ** rng.choice([0.2, 1.0], 200_000)
    return np.concatenate([wide, -wide, near, -near, [0.0, -0.0, 1e-45]]).astype(np.float32)


def found(isa: str, name: str, x: np.ndarray) -> np.ndarray:
    y = x.copy()
    _native.activate(isa, name, list(CASES[name][0]), y)
    return y


def test_every_activation_is_tested():
    assert {name: len(case[0]) for name, case in CASES.items()} == _native.ACTIVATIONS


@pytest.mark.parametrize("isa", steps.FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_as_exact_as_they_say(isa, name):
    x = every_exponent()
    _, function, limit, floor = CASES[name]
    wanted = function(torch.from_numpy(x).double()).numpy()
    y = found(isa, name, x)
    with np.errstate(over="ignore"):
        rounded = wanted.astype(np.float32)
    usual = np.isfinite(rounded) & (np.abs(wanted) < 3e38)
    if name == "exp":  # which gives zero instead of subnormal numbers
        usual &= wanted > 1.18e-38
    np.testing.assert_array_equal(y[~np.isfinite(rounded)], rounded[~np.isfinite(rounded)])
    x, y, wanted = x[usual], y[usual], wanted[usual]
    floor = np.maximum(np.abs(x), 1e-30) if floor == "x" else floor
    error = np.abs(y - wanted) / np.maximum(np.abs(wanted), floor)
    assert error.max() <= limit, (x[error.argmax()], error.max())


PYTORCHS = {
    "clamp": lambda x: x.clamp(-0.5, 2),
    "elu": lambda x: F.celu(x, 1.5),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "mish": F.mish,
    "softplus": lambda x: F.softplus(x, 2),
}


@pytest.mark.parametrize("isa", steps.FAST)
@pytest.mark.parametrize("name", CASES)
def test_nan_and_infinity_go_pytorchs_way(isa, name):
    # PyTorch's own gelu at infinity depends on the length of the vector, its hardswish overflows on the way
    x = ODD[[0, 3, 4, 5, 6, 7]] if name in ("gelu", "hardswish") else ODD
    wanted = PYTORCHS.get(name, CASES[name][1])(torch.from_numpy(x)).numpy()
    y = x.copy()
    _native.activate(isa, name, [1.5, 1.0, 1 / 1.5] if name == "elu" else list(CASES[name][0]), y)
    np.testing.assert_allclose(y, wanted, rtol=1e-6, atol=1e-36)


def test_the_comparison_sees_a_wrong_function():
    x = every_exponent()
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found("base", "erf", x), np.tanh(x), rtol=1e-3)


every_isa = pytest.mark.parametrize("isa", steps.FAST)
names = st.sampled_from(sorted(CASES))
many = settings(max_examples=40, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def act_of(name):
    return [name, *CASES[name][0]]


@every_isa
@many
@given(name=names, seed=seeds, grid=grids(), planes=st.integers(1, 4), threads=st.integers(1, 3))
def test_pointwise_changes_pixels_only_and_keeps_padding_zero(isa, name, seed, grid, planes, threads):
    case = steps.pointwise(seed, act_of(name), grid, planes)
    flags = steps.inside(grid)
    arena = case.run(isa, threads)
    np.testing.assert_allclose(arena, case.run("reference"), rtol=1e-6, atol=1e-6)
    written = np.zeros(len(arena), bool)
    for x, y in zip(case.arguments["x"], case.arguments["y"], strict=True):
        pixels = case.arena[x : x + len(flags)].copy()
        _native.activate(isa, name, list(CASES[name][0]), pixels)
        np.testing.assert_array_equal(arena[y : y + len(flags)], np.where(flags, pixels, 0))
        written[y : y + len(flags)] = True
    np.testing.assert_array_equal(arena[~written], case.arena[~written])


@every_isa
@many
@given(
    name=names,
    seed=seeds,
    grid=grids(),
    mb=st.sampled_from([1, 2, 4, 8]),
    vectors=st.integers(1, 12),
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=20).map(tuple),
    chunks=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    residual=st.booleans(),
)
def test_behind_taps_it_is_the_same_as_alone(isa, name, seed, grid, mb, vectors, counts, chunks, residual):
    case = steps.taps(seed, mb, vectors, counts, grid, residual, row_chunks=chunks[0], tile_chunks=chunks[1])
    plain, flags = case.run(isa), steps.inside(grid)
    together = case.changed(act=act_of(name)).run(isa)
    for out in case.arguments["out"]:
        pixels = plain[out : out + len(flags)].copy()
        _native.activate(isa, name, list(CASES[name][0]), pixels)
        np.testing.assert_array_equal(together[out : out + len(flags)], np.where(flags, pixels, 0))


@every_isa
@many
@given(name=names, seed=seeds, width=st.sampled_from(steps.WIDTHS), samples=st.integers(1, 6), batch=st.integers(1, 9))
def test_behind_rows_it_is_the_same_as_alone(isa, name, seed, width, samples, batch):
    case = steps.rows(seed, width, samples, batch, row_chunks=2)
    plain, together = case.run(isa), case.changed(act=act_of(name)).run(isa)
    y, stride = case.arguments["y"], case.arguments["y_stride"]
    for n in range(batch):
        row = slice(y + n * stride, y + n * stride + len(case.arguments["bias"]))
        pixels = plain[row].copy()
        _native.activate(isa, name, list(CASES[name][0]), pixels)
        np.testing.assert_array_equal(together[row], pixels)


@every_isa
def test_each_row_may_have_a_slope(isa):
    case = steps.taps(mb=4, counts=(5, 3))
    slope = np.array([0.5, -1, 0.25, 0, 2, 0.1], np.float32)
    plain, together = case.run(isa), case.changed(act=["leaky_relu"], slope=slope).run(isa)
    flags = steps.inside(tuple(case.arguments["grid"]))
    for row, out in enumerate(case.arguments["out"][: len(slope)]):
        x = plain[out : out + len(flags)]
        np.testing.assert_array_equal(together[out : out + len(flags)], np.where(x > 0, x, x * slope[row]))


@every_isa
@many
@given(
    name=st.sampled_from([None, "silu", "clamp"]),
    seed=seeds,
    batch=st.integers(1, 5),
    features=st.integers(1, 90),
    threads=st.integers(1, 3),
)
def test_scale_of_features(isa, name, seed, batch, features, threads):
    case = steps.scale(seed, batch, features, act_of(name) if name else None)
    stride, begin = case.arguments["grid"][1], case.arguments["y"][0]
    arena = case.run(isa, threads)
    np.testing.assert_array_equal(arena[:begin], case.arena[:begin])
    np.testing.assert_allclose(arena, case.run("reference"), rtol=1e-5, atol=1e-5)
    x = case.arena[3:begin].reshape(batch, stride)[:, :features]
    weight, bias = (case.arguments[role][:features] for role in ("weight", "bias"))
    wanted = torch.from_numpy(x * weight + bias)
    wanted = CASES[name][1](wanted) if name else wanted
    np.testing.assert_allclose(arena[begin:].reshape(batch, stride)[:, :features], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("are for rows", {"grid": [1, 144, 48, 3, 37]}),
        ("are for rows", {"grid": [3, 47, 47, 1, 37]}),
        ("one weight and bias for each position", {"weight": np.ones(37, np.float32)}),
        ("bias is missing", {"bias": ...}),
    ],
)
def test_what_is_wrong_with_a_scale_is_said(message, changes):
    case = steps.scale()
    with pytest.raises(ValueError, match=message):
        case.add(_native.Program(len(case.arena), [], 1, "base"), **changes)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("an activation needs a name", {"act": []}),
        ("act is", {"act": [3]}),
        ("unknown activation 'dance'", {"act": ["dance"]}),
        ("wrong number of parameters", {"act": ["leaky_relu"]}),
        ("wrong number of parameters", {"act": ["silu", 1.0]}),
        ("only leaky_relu has a slope", {"act": ["silu"], "slope": np.ones(3, np.float32)}),
        ("slope is empty", {"act": ["leaky_relu"], "slope": np.ones(0, np.float32)}),
        ("slope is not an array of float32", {"act": ["leaky_relu"], "slope": np.ones(3, np.int32)}),
        ("needs an activation", {"act": None}),
        ("as many output as input planes", {"x": steps.i32(0)}),
        ("at least one plane", {"x": steps.i32(), "y": steps.i32()}),
        ("outside the arena", {"y": steps.i32(0, 10**6)}),
        ("outside the arena", {"x": steps.i32(-1, 0)}),
        ("sizes are out of range", {"grid": [1, 1, 1, 1, 0]}),
    ],
)
def test_what_is_wrong_with_a_pointwise_step_is_said(message, changes):
    with pytest.raises(ValueError, match=message):
        steps.pointwise(planes=2).changed(**changes).run("base")


def test_rows_have_no_slopes():
    with pytest.raises(ValueError, match="rows have no slope for each output"):
        steps.rows().changed(act=["leaky_relu"], slope=np.ones(48, np.float32)).run("base")
