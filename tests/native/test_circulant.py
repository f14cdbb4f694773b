"""A block-circulant step multiplies by the matrix that it stands for; what is not finite goes PyTorch's way."""

import math

import native_steps as steps
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.engine import _native

every_isa = pytest.mark.parametrize("isa", steps.FLOATS)
many = settings(max_examples=60, deadline=None)
BLOCKS = [4, 8, 16, 32, 64, 128]
options = {
    "seed": st.integers(0, 2**32 - 1),
    "block": st.sampled_from(BLOCKS),
    "features": st.integers(1, 300),
    "outputs": st.integers(1, 300),
    "samples": st.integers(1, 6),
    "batch": st.integers(1, 9),
    "row_chunks": st.integers(1, 9),
    "clamp": st.sampled_from([(-math.inf, math.inf), (0.0, math.inf), (-1.0, 1.0)]),
}


def close(found, wanted, case):
    """Within 1e-5 of the largest sum: rounding grows with a sample's inputs, not with one output."""
    sums = steps.multiplied(case.changed(lo=-math.inf, hi=math.inf))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(sums).max())


@every_isa
@many
@given(**options)
def test_is_the_product_with_the_matrix(isa, **options):
    case = steps.circulant(**options)
    close(case.run(isa), steps.multiplied(case), case)


@pytest.mark.parametrize("block", BLOCKS)
def test_the_reference_is_the_definition(block):
    case = steps.circulant(block=block, features=2 * block + 3, outputs=17 * block + 1)
    np.testing.assert_allclose(case.run("reference"), steps.multiplied(case), rtol=1e-6, atol=1e-6)


@every_isa
@many
@given(**{name: options[name] for name in ("seed", "block", "features", "outputs", "batch", "row_chunks")})
def test_reads_and_writes_its_own_floats_only(isa, **sizes):
    case = steps.circulant(**sizes)
    arena, written = steps.features_alone(case)
    found = case.run(isa, arena=arena)
    assert np.isfinite(found[written]).all()
    np.testing.assert_array_equal(found[~written], arena[~written])


@every_isa
@many
@given(
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    **{name: options[name] for name in ("seed", "block", "features", "outputs", "batch", "row_chunks")},
)
def test_what_is_not_finite_appears_where_pytorch_has_it(isa, value, seed, **sizes):
    """Also under zero weights; other samples are as they were."""
    case, rng = steps.circulant(seed, **sizes), np.random.default_rng(seed)
    weights = case.arguments["value"]
    case = case.changed(value=weights * (rng.random(len(weights)) < 0.7))
    before, a = case.run(isa), case.arguments
    spoiled = int(rng.integers(sizes["batch"]))
    at = a["x"] + spoiled * a["x_stride"]
    case.arena[at + rng.choice(sizes["features"], min(2, sizes["features"]), replace=False)] = value
    found, wanted = (torch.from_numpy(y.astype(np.float32)) for y in (case.run(isa), steps.multiplied(case)))
    for n in range(sizes["batch"]):
        begin = a["y"] + n * a["y_stride"]
        row = slice(begin, begin + sizes["outputs"])
        if n == spoiled:
            torch.testing.assert_close(found[row], wanted[row], rtol=1e-4, atol=1e-4, equal_nan=True)
        else:
            np.testing.assert_array_equal(found[row], before[row])


@every_isa
@pytest.mark.parametrize("block", BLOCKS)
def test_inputs_whose_frequencies_overflow_are_summed_as_defined(isa, block):
    case = steps.circulant(block=block, features=2 * block, outputs=block)
    case = case.changed(value=np.full(2 * block, 0.5 / block, np.float32))
    case.arena[11 : 11 + 2 * block] = 3e38
    y = case.arguments["y"]
    np.testing.assert_allclose(case.run(isa)[y : y + block], 3e38, rtol=1e-6)


@pytest.mark.parametrize("isa", steps.FAST)
def test_neither_samples_nor_cuts_change_a_bit(isa):
    case = steps.circulant(block=16, features=70, outputs=900, batch=5)
    wanted = case.changed(samples=1).run(isa)
    for threads in (1, 2, 3):
        for samples, chunks in ((1, 3), (2, 1), (6, 2)):
            found = case.changed(samples=samples, row_chunks=chunks).run(isa, threads)
            np.testing.assert_array_equal(found, wanted)


def test_a_wrong_weight_is_seen():
    case = steps.circulant()
    value = case.arguments["value"].copy()
    value[3] *= 1.01
    with pytest.raises(AssertionError):
        close(case.changed(value=value).run(_native.isas()[0]), steps.multiplied(case), case)
