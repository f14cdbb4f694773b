"""Weights on a grid are told from their numbers; activations' grids through operators that only move values."""

import numpy as np
import pytest
import torch

from openwork.compiler.graph import Node
from openwork.compiler.integers import Bytes, bytes_of, merged, whole_weights
from openwork.constraints.levels import Levels

RANDOM = np.random.default_rng(0)


def weights(bits, shape=(8, 40), zeros=0.3):
    """Whole numbers of some bits with zeros, and a step for each channel."""
    top = 2 ** (bits - 1) - 1 if bits > 1 else 1
    k = RANDOM.integers(-top, top + 1, shape)
    k[RANDOM.random(shape) < zeros] = 0
    return k, RANDOM.uniform(1e-3, 3e-2, (shape[0], 1)).astype(np.float32)


def assert_same(found, w):
    assert found.whole.dtype == np.int8 and found.step.dtype == np.float32 and found.whole.shape == w.shape
    step = found.step.reshape(-1, *[1] * (w.ndim - 1)).astype(np.float64)
    np.testing.assert_allclose(found.whole * step, w, rtol=1e-6, atol=0)
    np.testing.assert_array_equal(found.whole == 0, w == 0)


@pytest.mark.parametrize("bits", range(1, 9))
def test_finds_whole_numbers_and_their_step(bits):
    k, step = weights(bits)
    w = (k * step).astype(np.float32)
    found = whole_weights(w)
    assert_same(found, w)
    # the same but for a common divisor of a channel, which makes the step larger
    ratio = np.gcd.reduce(k, axis=1)
    np.testing.assert_array_equal(found.whole * ratio[:, None], k)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_finds_them_after_batch_norm_was_folded(bits):
    k, step = weights(bits, (16, 300))
    gamma = RANDOM.uniform(-2, 2, (16, 1))
    w = (k * step).astype(np.float32)
    folded = (w.astype(np.float64) * gamma).astype(np.float32)
    found = whole_weights(folded.reshape(16, 12, 5, 5))
    assert_same(found, folded.reshape(16, 12, 5, 5))


def test_a_step_that_nearly_fits_is_refined_to_the_middle_of_the_numbers():
    k, step = weights(8, (4, 400))
    w = (k * step).astype(np.float32)
    np.testing.assert_allclose(whole_weights(w).step * np.gcd.reduce(k, axis=1) ** -1.0, step[:, 0], rtol=1e-7)


def test_channels_of_zeros_and_of_one_number():
    w = np.zeros((4, 6), np.float32)
    w[1, 2], w[2, [0, 5]] = -0.37, (0.11, -0.11)
    found = whole_weights(w)
    assert_same(found, w)
    assert found.whole[1, 2] in (-1, 1) and list(found.step[[0, 3]]) == [1, 1]


def test_powers_of_two_up_to_seven_of_them():
    for levels, fits in ((7, True), (8, False)):
        w = (2.0 ** -np.arange(levels, dtype=np.float32))[None] * np.float32(0.3)
        assert (whole_weights(w) is not None) is fits


@pytest.mark.parametrize("scheme", ["uniform", "nonzero", "power_of_two"])
def test_weights_of_the_constraint_are_found(scheme):
    bits = 3 if scheme == "power_of_two" else 5
    torch.manual_seed(0)
    w = Levels(bits=bits, scheme=scheme, per="channel").project(torch.randn(6, 5, 3, 3)).numpy()
    assert_same(whole_weights(w), w)


def test_ordinary_and_nearly_whole_weights_lie_on_none():
    w = RANDOM.normal(size=(4, 30)).astype(np.float32)
    assert whole_weights(w) is None
    k, step = weights(8, (1, 50))
    near = (k * step).astype(np.float32)
    near[0, np.flatnonzero(k)[7]] *= 1 + 1e-5
    assert whole_weights(near) is None
    assert whole_weights((np.arange(1, 200, dtype=np.float32))[None]) is None  # 199 levels


def test_tiny_and_huge_weights():
    k, _ = weights(4, (3, 20))
    for step in (1e-38, 1e36):
        w = (k * step).astype(np.float32)
        found = whole_weights(w)
        assert found is not None and np.isfinite(found.step).all()


def test_bounds_become_whole_numbers():
    grid = Bytes(0.05, -127, 127)
    assert grid.clamped(0.0, 6.0) == Bytes(0.05, 0, 120)
    assert grid.clamped(-np.inf, np.inf) == grid
    assert Bytes(0.5, 0, 255).clamped(0.75, 1.25) == Bytes(0.5, 2, 2)  # ties to even


def test_merged_grids_have_one_step_and_fit_into_bytes():
    assert merged([Bytes(0.5, 0, 100), Bytes(0.5, -5, 7)]) == Bytes(0.5, -5, 100)
    assert merged([Bytes(0.5, 0, 255), Bytes(0.5, -5, 7)]) is None
    assert merged([Bytes(0.5, 0, 255), Bytes(0.25, 0, 255)]) is None
    assert merged([Bytes(0.5, 0, 255), None]) is None


def test_values_stay_on_their_grid_where_they_only_move():
    grid = Bytes(0.5, 0, 255)
    nodes = [
        Node("x", "input", (), (1, 2, 4, 4)),
        Node("q", "quantize", ("x",), (1, 2, 4, 4), {"bytes": grid}),
        Node("p", "max_pool", ("q",), (1, 2, 2, 2), {"padding": (0, 0), "dilation": (1, 1)}),
        Node("c", "concat", ("p", "p"), (1, 4, 2, 2)),
        Node("d", "concat", ("p", "x"), (1, 4, 2, 2)),
        Node("m", "mean", ("q",), (1, 2, 1, 1)),
    ]
    known = {n.name: n for n in nodes}
    assert [bytes_of(known, name) for name in "xqpcdm"] == [None, grid, grid, grid, None, None]
