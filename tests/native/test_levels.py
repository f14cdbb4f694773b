"""Nested sparsity levels: each level of a step is the plain step with that level's taps, whatever lies behind them."""

import math

import native_steps as steps
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_steps import i32
from native_steps.slabs import cut

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", (*steps.FAST, "reference"))
many = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)
some_counts = st.lists(st.integers(0, 40), min_size=1, max_size=6).map(tuple)
clamps = st.sampled_from([(-math.inf, math.inf), (0.0, 6.0)])


def agree(case, isa, threads=1):
    for level in range(1, case.arguments["levels"]):
        wanted = steps.of_level(case, level).run("reference")
        np.testing.assert_allclose(case.run(isa, threads, level=level), wanted, rtol=1e-5, atol=1e-5)
    plain = {name: value for name, value in case.arguments.items() if "level" not in name}
    np.testing.assert_array_equal(
        case.run(isa, threads), steps.Case(case.family, plain, case.arena, case.buffers).run(isa, threads)
    )


@every_isa
@many
@given(
    seed=seeds,
    mb=st.sampled_from([1, 2, 4, 8]),
    vectors=st.integers(1, 12),
    counts=some_counts,
    residual=st.booleans(),
    clamp=clamps,
    row_chunks=st.integers(1, 9),
    tile_chunks=st.integers(1, 9),
    levels=st.integers(2, 4),
    scale=st.booleans(),
)
def test_taps(isa, seed, levels, scale, **options):
    agree(steps.leveled(steps.taps(seed, **options), levels, scale, seed), isa)


@every_isa
@many
@given(
    seed=seeds,
    width=st.sampled_from(steps.WIDTHS),
    samples=st.integers(1, 4),
    counts=some_counts,
    clamp=clamps,
    levels=st.integers(2, 4),
    scale=st.booleans(),
)
def test_rows(isa, seed, levels, scale, **options):
    agree(steps.leveled(steps.rows(seed, **options), levels, scale, seed), isa)


@every_isa
def test_with_activations_slabs_and_threads(isa):
    agree(steps.leveled(steps.taps().changed(act=["silu"])), isa)
    agree(steps.leveled(cut(steps.taps(grid=(1, 40, 7, 5, 6)), 3, 2)), isa, threads=3)
    agree(steps.leveled(steps.rows(width=4, counts=(7, 0, 35, 16, 1)).changed(act=["silu"])), isa, threads=2)


@every_isa
@pytest.mark.parametrize("case", [steps.taps(), steps.rows(), steps.rows(width=2, counts=(7, 0, 35))])
def test_weights_that_a_level_has_not_are_not_touched(isa, case):
    case = steps.leveled(case, levels=2)
    start, end = case.arguments["start"], case.arguments["level_end"]
    value = case.arguments["value"].reshape(start[-1], -1).copy()
    assert len(value) > np.sum(end - start[:-1]) > 0
    for begin, stop in zip(end, start[1:], strict=True):
        value[begin:stop] = np.nan
    wanted = case.run(isa, level=1)
    np.testing.assert_array_equal(case.changed(value=value.reshape(-1)).run(isa, level=1), wanted)


NO_FLOATS, HUGE = np.zeros(0, np.float32), 2**31 - 1
BAD = [
    ("1 to 16 levels", {"levels": 0}),
    ("1 to 16 levels", {"levels": 17}),
    ("one end for each block", {"levels": 4}),
    ("one end for each block", {"level_end": i32(3)}),
    ("one bias for each row", {"level_bias": NO_FLOATS}),
    ("one factor for each row", {"level_scale": np.zeros(3, np.float32)}),
    ("a beginning of the one before", {"level_end": i32(5, 5, 14, 5, 6, 5)}),
    ("a beginning of the one before", {"level_end": i32(5, 5, HUGE, 5, 5, 5)}),
    ("a beginning of the one before", {"level_end": i32(5, 5, 14, -1, 5, 5)}),
    ("a beginning of the one before", {"level_end": i32(4, 5, 14, 5, 5, 14)}),
    ("cannot be cut into pieces", {"pieces": 2}),
]


@pytest.mark.parametrize(("message", "arguments"), BAD, ids=lambda v: str(v)[:40])
def test_a_wrong_argument_is_refused_and_named(message, arguments):
    case = steps.leveled(steps.taps())
    with pytest.raises(ValueError, match=message):
        case.changed(**arguments).run("auto")


def test_steps_of_a_program_agree_in_their_levels():
    case = steps.leveled(steps.taps())
    program = _native.Program(len(case.arena), [], 1)
    assert program.levels == 1
    steps.taps().add(program)
    case.add(program)
    assert program.levels == 3
    with pytest.raises(ValueError, match="different numbers of levels"):
        steps.leveled(steps.taps(), levels=2).add(program)
    for level in (-1, 3):
        with pytest.raises(ValueError, match="no such level"):
            program.run(0, 2, [], level)
