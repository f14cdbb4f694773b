"""Random steps that work on one number, or on two of them, at a time."""

from typing import Any

import numpy as np

from .case import UNIT, Case, f32, i32, inside


def pointwise(
    seed: int = 0,
    act: list[Any] | None = None,
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    planes: int = 3,
) -> Case:
    """An activation of planes in any order, from one half of the arena to the other."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    places = 5 + reach * rng.permutation(2 * planes)
    arguments = {
        "act": act or ["leaky_relu", 0.25],
        "x": i32(places[:planes]),
        "y": i32(places[planes:]),
        "grid": list(grid),
    }
    return Case("pointwise", arguments, f32(5 + 2 * planes * reach, rng))


def scale(seed: int = 0, batch: int = 3, features: int = 37, act: list[Any] | None = None) -> Case:
    """Rows of features, each times a weight and plus a bias of its own."""
    rng = np.random.default_rng(seed)
    stride = -(-features // UNIT) * UNIT
    arguments = {
        "x": i32(3),
        "y": i32(3 + batch * stride),
        "grid": [batch, stride, stride, 1, features],
        "weight": f32(stride, rng),
        "bias": f32(stride, rng),
        **({"act": act} if act else {}),
    }
    return Case("pointwise", arguments, f32(3 + 2 * batch * stride, rng))


def binary(
    seed: int = 0,
    function: str = "mul",
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    planes: int = 3,
    each: bool = False,
) -> Case:
    """A function of two stacks of planes in any order; with `each` the second is one number a plane and sample."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    places = 5 + reach * rng.permutation(3 * planes)
    end = 5 + 3 * planes * reach
    arguments = {
        "function": function,
        "a": i32(places[:planes]),
        "b": i32(end + rng.permutation(planes)) if each else i32(places[planes : 2 * planes]),
        "y": i32(places[2 * planes :]),
        "grid": list(grid),
        **({"b_stride": planes + 2} if each else {}),
    }
    return Case("binary", arguments, f32(end + grid[0] * (planes + 2), rng))
