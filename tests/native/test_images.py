"""Steps that make images larger or smaller, against NumPy, the naive reference and PyTorch."""

import native_steps as steps
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

every_isa = pytest.mark.parametrize("isa", steps.FAST)
many = settings(max_examples=60, deadline=None)
seeds = st.integers(0, 2**32 - 1)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 70))


@every_isa
@many
@given(
    seed=seeds,
    factor=st.tuples(st.integers(1, 4), st.integers(1, 7)),
    shape=shapes,
    threads=st.integers(1, 3),
)
def test_interleaving_is_exact_and_writes_its_pixels_only(isa, seed, factor, shape, threads):
    case, wanted = steps.interleave(seed, shape, factor)
    found = case.run(isa, threads)
    np.testing.assert_array_equal(found, case.run("reference"))
    np.testing.assert_array_equal(steps.read(shape, found, case.arguments, "y"), wanted)
    before = case.arena.copy()
    steps.place(wanted, before, case.arguments, "y")
    np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("factors must be 1 to 64", {"factor": [65, 1]}),
        ("factors must be 1 to 64", {"factor": [2, 0]}),
        ("one input plane for each phase", {"factor": [3, 3]}),
        ("at least one row and column", {"size": [0, 5]}),
        ("at least one row and column", {"size": [7, 2**24]}),
        ("outside its buffer", {"size": [7, 5000]}),
        ("batch must be at least 1", {"batch": 0}),
        ("outside its buffer", {"batch": 9}),
        ("factor has the wrong length", {"factor": [2]}),
    ],
)
def test_what_is_wrong_with_an_interleaving_is_said(message, changes):
    with pytest.raises(ValueError, match=message):
        steps.interleave()[0].changed(**changes).run("base")


@every_isa
@many
@given(
    seed=seeds,
    shape=shapes,
    size=st.tuples(st.integers(1, 20), st.integers(1, 90) | st.just(2100)),
    threads=st.integers(1, 3),
)
def test_interpolation_mixes_four_pixels_and_writes_its_own_only(isa, seed, shape, size, threads):
    case, wanted = steps.bilinear(seed, shape, size)
    found = case.run(isa, threads)
    np.testing.assert_allclose(found, case.run("reference"), rtol=1e-5, atol=1e-5)
    pixels = steps.read((*shape[:2], *size), found, case.arguments, "y")
    np.testing.assert_allclose(pixels, wanted, rtol=1e-5, atol=1e-5)
    before = case.arena.copy()
    steps.place(pixels, before, case.arguments, "y")
    np.testing.assert_array_equal(found, before)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("one place and share", {"row": steps.i32(0)}),
        ("one place and share", {"column_share": np.zeros(3, np.float32)}),
        ("reads outside the image", {"row": steps.i32([7] * 9)}),
        ("reads outside the image", {"column": steps.i32([-1] * 11)}),
        ("at least one row and column", {"size": [7, 0, 9, 11]}),
        ("at least one row and column", {"size": [2**24, 5, 9, 11]}),
        ("outside its buffer", {"size": [500, 5, 9, 11]}),
        ("batch must be at least 1", {"batch": 0}),
        ("outside its buffer", {"batch": 9}),
        ("size has the wrong length", {"size": [7, 5]}),
    ],
)
def test_what_is_wrong_with_an_interpolation_is_said(message, changes):
    with pytest.raises(ValueError, match=message):
        steps.bilinear()[0].changed(**changes).run("base")


def test_as_many_planes_come_out_as_go_in():
    case = steps.bilinear()[0]
    with pytest.raises(ValueError, match="as many output as input planes"):
        case.changed(y={**case.arguments["y"], "planes": steps.i32(0)}).run("base")


@every_isa
@many
@given(
    seed=seeds,
    planes=st.integers(1, 9),
    stretches=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=5).map(tuple),
    threads=st.integers(1, 3),
)
def test_clearing_writes_zeros_where_it_should_and_nowhere_else(isa, seed, planes, stretches, threads):
    case = steps.clear(seed, planes, 40, stretches)
    wanted = case.arena.copy()
    for plane in case.arguments["planes"]:
        for first, length in stretches:
            wanted[plane + first :][:length] = 0
    np.testing.assert_array_equal(case.run(isa, threads), wanted)


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("at least one plane", {"planes": steps.i32()}),
        ("a length for each stretch", {"length": steps.i32(1, 2)}),
        ("a stretch lies outside its plane", {"first": steps.i32(0, -1, 2)}),
        ("a stretch lies outside its plane", {"length": steps.i32(0, -1, 2)}),
        ("a plane lies outside the arena", {"length": steps.i32(3, 1, 500)}),
        ("a plane lies outside the arena", {"first": steps.i32(0, 2**31 - 1, 0), "length": steps.i32(1, 2**31 - 1, 1)}),
        ("a plane lies outside the arena", {"planes": steps.i32(7, 7 + 9 * 40 + 1)}),
        ("a plane lies outside the arena", {"planes": steps.i32(-1)}),
    ],
)
def test_what_is_wrong_with_a_clearing_is_said(message, changes):
    with pytest.raises(ValueError, match=message):
        steps.clear().changed(**changes).run("base")
