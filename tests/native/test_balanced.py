"""A balanced step multiplies by the matrix that its slots stand for."""

import math

import native_steps as steps
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", steps.FAST)
many = settings(max_examples=60, deadline=None)
options = {
    "seed": st.integers(0, 2**32 - 1),
    "window": st.sampled_from([4, 8, 32]),
    "features": st.integers(1, 200),
    "outputs": st.integers(33, 48),
    "counts": st.tuples(*[st.integers(0, 40)] * 3),
    "samples": st.integers(1, 6),
    "batch": st.integers(1, 9),
    "row_chunks": st.integers(1, 5),
    "placed": st.booleans(),
}


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


@every_isa
@many
@given(**options, clamp=st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (-1.0, 1.0)]))
def test_is_the_product_with_the_matrix(isa, **options):
    case = steps.balanced(**options)
    close(case.run(isa), steps.slotted(case))


@many
@given(**options)
def test_the_reference_is_the_definition(**options):
    case = steps.balanced(**options)
    np.testing.assert_allclose(case.run("reference"), steps.slotted(case), rtol=1e-6, atol=1e-6)


@every_isa
@many
@given(**options)
def test_reads_and_writes_its_own_floats_only(isa, **sizes):
    case = steps.balanced(**sizes)
    arena, written = steps.features_alone(case)
    found = case.run(isa, arena=arena)
    assert np.isfinite(found[written]).all()
    np.testing.assert_array_equal(found[~written], arena[~written])


@every_isa
@pytest.mark.parametrize("window", [4, 8, 32])
def test_only_who_reads_an_input_sees_that_it_is_not_finite(isa, window):
    case = steps.balanced(window=window, features=70, counts=(20, 3, 9))
    before, a = case.run(isa), case.arguments
    for value in (np.nan, np.inf):
        arena = case.arena.copy()
        arena[a["x"] + a["x_stride"] + 33] = value  # of the second sample
        found = case.run(isa, arena=arena)
        spoiled = case.run("reference", arena=arena)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(spoiled))
        same = np.isfinite(spoiled)
        np.testing.assert_array_equal(found[same], before[same])


@every_isa
def test_the_order_of_outputs_changes_nothing_else(isa):
    case = steps.balanced(placed=True, batch=2)
    place, y = case.arguments["place"], case.arguments["y"]
    plain = case.changed(place=np.arange(40, dtype=np.int32))
    for n in range(2):
        at = y + n * case.arguments["y_stride"]
        np.testing.assert_array_equal(case.run(isa)[at + place], plain.run(isa)[at : at + 40])


def test_a_wrong_position_is_seen():
    case = steps.balanced()
    index = case.arguments["index"].copy()
    index[:16] ^= 1 << 5  # of the second slot
    with pytest.raises(AssertionError):
        close(case.changed(index=index).run(_native.isas()[0]), steps.slotted(case))
