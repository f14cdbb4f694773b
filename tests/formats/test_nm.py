"""N:M storage: the worked example bit for bit, and what a weight takes."""

import math

import numpy as np
import pytest

from openwork.errors import ArtifactError, ShapeError
from openwork.formats.packed.nm import NM


def member(n: int, m: int, shape: tuple[int, ...], order: tuple[int, ...] = ()) -> np.ndarray:
    """A weight with at most n non-zeros in m channels, which come in `order`."""
    w = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    whole = math.ceil(shape[1] / m) * m
    at = np.array(order or range(whole))
    for group in at.reshape(-1, m):
        real = group[group < shape[1]]
        strength = np.abs(w[:, real])
        w[:, real] = np.where(strength.argsort(axis=1).argsort(axis=1) < len(real) - n, 0, w[:, real])
    return w


def test_the_worked_example() -> None:
    w = np.array([[0, 3, 0, 5, 2, 0, 0, -1]], np.float32)
    packed = NM.pack(w, n=2, m=4)
    assert packed.value.tolist() == [[3, 5], [2, -1]]
    assert packed.place.tolist() == [0xCD]
    assert np.array_equal(packed.unpack(), w)


def test_groups_with_fewer_non_zeros_store_zeros_at_other_places() -> None:
    packed = NM.pack(np.array([[0, 0, 0, 7], [0, 0, 0, 0]], np.float32), n=2, m=4)
    assert packed.value.tolist() == [[0, 7], [0, 0]]
    assert packed.place.tolist() == [0 | 3 << 2 | 0 << 4 | 1 << 6]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 8), (3, 8), (2, 6), (1, 16)])
@pytest.mark.parametrize("shape", [(8, 48), (8, 48, 3, 3), (5, 10), (4, 3, 3, 3)])
@pytest.mark.parametrize("ordered", [False, True])
def test_members_come_back_and_take_what_the_formula_says(
    n: int, m: int, shape: tuple[int, ...], ordered: bool
) -> None:
    whole = math.ceil(shape[1] / m) * m
    order = tuple(np.random.default_rng(1).permutation(whole).tolist()) if ordered else ()
    w = member(n, m, shape, order)
    packed = NM.pack(w, n=n, m=m, order=order)
    values = shape[0] * math.prod(shape[2:]) * whole // m * n
    assert packed.nbytes == 4 * values + math.ceil(values * math.ceil(math.log2(m)) / 8) + 2 * len(order)
    assert np.array_equal(packed.unpack(), w)


def test_two_of_four_saves_what_the_paper_counts() -> None:
    """4 values of 16 bits become 2 and a nibble: 36 of 64 bits."""
    packed = NM.pack(member(2, 4, (16, 64)), n=2, m=4)
    assert (packed.value.nbytes / 2 + packed.place.nbytes) / (16 * 64 * 2) == 36 / 64


def test_weights_of_another_pattern_are_refused() -> None:
    with pytest.raises(ShapeError, match="1 groups of 4 have more than 2 non-zeros; project the weight first"):
        NM.pack(np.array([[1, 2, 3, 0, 0, 0, 1, 0]], np.float32), n=2, m=4)


def test_places_must_rise_and_orders_must_be_permutations() -> None:
    packed = NM.pack(np.array([[0, 3, 0, 5]], np.float32), n=2, m=4, order=(1, 0, 2, 3))
    fields = vars(packed)
    for name, array, words in [
        ("place", np.array([1 | 1 << 2], np.uint8), "places do not rise"),
        ("order", np.array([0, 0, 2, 3], np.uint16), "does not name each channel once"),
        ("order", np.array([0, 1], np.uint16), "does not name each channel once"),
    ]:
        with pytest.raises(ArtifactError, match=words):
            NM(**{**fields, name: array})
    with pytest.raises(ArtifactError, match="n = 4 of m = 4 is no pattern"):
        NM(**{**fields, "n": 4})
