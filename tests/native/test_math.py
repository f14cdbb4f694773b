"""Vector functions are as exact as they say, over every exponent, and treat NaN and infinity as PyTorch does."""

import native_steps as steps
import numpy as np
import pytest
import torch

from openwork.engine import _native

EXACT = {
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "erf": torch.erf,
    "gelu": torch.nn.functional.gelu,
}
RELATIVE = {"exp": 3e-7, "sigmoid": 3e-7, "tanh": 2e-7, "erf": 2e-7, "gelu": 4e-7}
"""Largest error over the result; where it is tiny, over 1 (exp: over the smallest normal number)."""


def every_exponent() -> np.ndarray:
    """Numbers of both signs from the smallest normal to the largest, many between -100 and 100, and an odd count."""
    rng = np.random.default_rng(0)
    wide = 2.0 ** rng.uniform(-126, 127.9, 20_000)
    near = rng.uniform(0, 100, 200_000) ** rng.choice([0.2, 1.0], 200_000)
    return np.concatenate([wide, -wide, near, -near, [0.0, -0.0, 1e-45]]).astype(np.float32)


def found(isa: str, name: str, x: np.ndarray) -> np.ndarray:
    y = x.copy()
    _native.map(isa, name, y)
    return y


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("name", _native.FUNCTIONS)
def test_functions_are_exact_to_rounding(isa, name):
    x = every_exponent()
    wanted = EXACT[name](torch.from_numpy(x).double()).numpy()
    y = found(isa, name, x)
    with np.errstate(over="ignore"):
        rounded = wanted.astype(np.float32)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(y[~finite], rounded[~finite])
    floor = 1.2e-38 if name == "exp" else 1e-30 if name in ("tanh", "erf") else 1.0
    if name == "gelu":
        floor = np.maximum(1.0, np.abs(x))[finite]
    error = np.abs(y[finite] - wanted[finite]) / np.maximum(np.abs(wanted[finite]), floor)
    normal = np.abs(wanted[finite]) > 1.2e-38 if name in ("exp", "tanh", "erf") else slice(None)
    assert error[normal].max() <= RELATIVE[name], (x[finite][normal][error[normal].argmax()], error[normal].max())


@pytest.mark.parametrize("isa", steps.FAST)
@pytest.mark.parametrize("name", _native.FUNCTIONS)
def test_nan_and_infinity_go_pytorchs_way(isa, name):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 90.0, -90.0, -200.0, 3e38, -3e38], np.float32)
    if name == "gelu":
        x = x[[0, 3, 4, 5, 6, 7]]  # PyTorch's own answers at infinity depend on its vector length
    wanted = EXACT[name](torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found(isa, name, x), wanted, rtol=1e-6, atol=1e-38)


def test_the_comparison_sees_a_wrong_function():
    x = every_exponent()
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found("base", "erf", x), np.tanh(x), rtol=1e-3)
