"""Functions of two values against PyTorch and the naive reference: NaN, infinity, padding, one number a plane."""

import native_steps as steps
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps.strategies import grids

every_isa = pytest.mark.parametrize("isa", steps.FAST)
FUNCTIONS = {f.__name__: f for f in (torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum)}
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0, -3.0, 3e38, -1e-30], np.float32)


@every_isa
@settings(max_examples=60, deadline=None)
@given(
    function=st.sampled_from(sorted(FUNCTIONS)),
    seed=st.integers(0, 2**32 - 1),
    grid=grids(),
    planes=st.integers(1, 4),
    each=st.booleans(),
    odd=st.booleans(),
    threads=st.integers(1, 3),
)
def test_pixels_are_pytorchs_and_padding_is_zero(isa, function, seed, grid, planes, each, odd, threads):
    case = steps.binary(seed, function, grid, planes, each)
    if odd:
        case.arena[:] = np.random.default_rng(seed).choice(ODD, len(case.arena))
    flags, found = steps.inside(grid), case.run(isa, threads)
    np.testing.assert_allclose(found, case.run("reference"), rtol=1e-6, atol=1e-36)
    written = np.zeros(len(found), bool)
    for a, b, y in zip(*(case.arguments[name] for name in "aby"), strict=True):
        first = case.arena[a : a + len(flags)]
        second = case.arena[b : b + len(flags)]
        if each:
            sample = np.minimum(np.arange(len(flags)) // grid[1], grid[0] - 1)
            second = case.arena[b + sample * case.arguments["b_stride"]]
        wanted = FUNCTIONS[function](torch.from_numpy(first), torch.from_numpy(second)).numpy()
        np.testing.assert_allclose(found[y : y + len(flags)], np.where(flags, wanted, 0), rtol=1e-6, atol=1e-36)
        written[y : y + len(flags)] = True
    np.testing.assert_array_equal(found[~written], case.arena[~written])


@every_isa
def test_an_activation_follows(isa):
    case = steps.binary(function="sub")
    plain, together = case.run(isa), case.changed(act=["clamp", -0.5, 0.5]).run(isa)
    for y in case.arguments["y"]:
        pixels = slice(y, y + len(steps.inside(tuple(case.arguments["grid"]))))
        np.testing.assert_array_equal(together[pixels], plain[pixels].clip(-0.5, 0.5))


@pytest.mark.parametrize(
    ("message", "each", "changes"),
    [
        ("unknown function of two values 'dance'", False, {"function": "dance"}),
        ("as many planes of both operands", False, {"a": steps.i32(0)}),
        ("as many planes of both operands", True, {"b": steps.i32(0)}),
        ("outside the arena", False, {"a": steps.i32(0, 10**6)}),
        ("outside the arena", False, {"b": steps.i32(-1, 0)}),
        ("outside the arena", False, {"y": steps.i32(0, 10**6)}),
        ("an operand lies outside the arena", True, {"b": steps.i32(0, 10**6)}),
        ("an operand lies outside the arena", True, {"b_stride": 10**6}),
        ("a stride is out of range", True, {"b_stride": -2}),
        ("at least one plane", False, {"a": steps.i32(), "b": steps.i32(), "y": steps.i32()}),
        ("unknown activation", False, {"act": ["dance"]}),
        ("sizes are out of range", False, {"grid": [1, 1, 1, 1, 0]}),
    ],
)
def test_what_is_wrong_with_a_binary_step_is_said(message, each, changes):
    with pytest.raises(ValueError, match=message):
        steps.binary(planes=2, each=each).changed(**changes).run("base")
