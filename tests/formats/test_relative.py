"""Relative indices: bit by bit, the bytes of the formula, the choice of bits."""

import numpy as np
import pytest

from openwork.errors import ArtifactError
from openwork.formats.packed import base
from openwork.formats.packed.relative import Relative


def test_the_worked_example() -> None:
    """Gaps 1, 3, 5 with indices of 2 bits: 3 is reached at once, 5 takes a filler of 3 places."""
    weight = np.zeros((2, 6), np.float32)
    weight[0, 0], weight[0, 3], weight[1, 2] = 1, -2, 3
    packed = base.pack("relative", weight, bits=2)
    assert isinstance(packed, Relative)
    assert packed.entries == 4 and packed.gap.tolist() == [0b01_11_10_00] and packed.value.tolist() == [1, -2, 3]
    assert packed.nbytes == 1 + 12 and np.array_equal(packed.unpack(), weight)


@pytest.mark.parametrize("density", [0.0, 0.002, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(30, 70), (6, 5, 3, 3)])
def test_bytes_are_those_of_the_formula_and_bits_make_them_least(density: float, shape: tuple[int, ...]) -> None:
    g = np.random.default_rng(0)
    weight = (g.standard_normal(shape) * (g.random(shape) < density)).astype(np.float32)
    place = np.flatnonzero(weight)
    sizes = {}
    for bits in range(1, 17):
        packed = base.pack("relative", weight, bits=bits)
        fillers, at = 0, -1
        for p in place:
            fillers += (p - at - 1) // (2**bits - 1)
            at = p
        if len(place) and np.diff(place, prepend=-1).max() < 2**bits:
            assert fillers == 0
        sizes[bits] = (len(place) + fillers) * bits
        assert packed.nbytes == 4 * len(place) + -(-sizes[bits] // 8)
        assert np.array_equal(packed.unpack(), weight)
    best = base.pack("relative", weight)
    assert isinstance(best, Relative) and sizes[best.bits] == min(sizes.values())


def test_fields_that_are_none_are_refused() -> None:
    packed = base.pack("relative", np.eye(4, dtype=np.float32))
    for wrong in ({"bits": 0}, {"bits": 17}, {"bits": "3"}, {"entries": -1}, {"entries": 400}, {"entries": None}):
        with pytest.raises(ArtifactError, match="relative"):
            type(packed)(**{**vars(packed), **wrong})
