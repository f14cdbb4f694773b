"""Polarized fragments, stored: magnitudes in the order of fragments, signs bit by bit, what is refused."""

import numpy as np
import pytest
import torch

from openwork.constraints.polarized import Polarized
from openwork.errors import ArtifactError, ShapeError
from openwork.formats.packed import base


def test_magnitudes_and_a_sign_for_each_fragment_are_stored() -> None:
    w = np.array([[1, 2, -3, -0.0, -5], [-1, -2, 0, 0, 4]], np.float32)
    packed = base.pack("polarized", w, fragment=2, order="channel")
    assert packed.arrays["negative"].tolist() == [0b001_110]
    assert packed.arrays["magnitude"].tolist() == [[1, 2, 3, 0, 5], [1, 2, 0, 0, 4]]
    assert np.array_equal(packed.unpack(), w)


def test_a_kernel_lies_in_the_order_of_its_fragments() -> None:
    w = np.arange(1, 13, dtype=np.float32).reshape(1, 3, 2, 2)
    orders = {
        "width": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        "height": [1, 3, 2, 4, 5, 7, 6, 8, 9, 11, 10, 12],
        "channel": [1, 5, 9, 2, 6, 10, 3, 7, 11, 4, 8, 12],
    }
    for order, wanted in orders.items():
        packed = base.pack("polarized", -w, fragment=4, order=order)
        assert packed.arrays["magnitude"].tolist() == [wanted] and packed.arrays["negative"].tolist() == [0b111]
        assert np.array_equal(packed.unpack(), -w)


@pytest.mark.parametrize("shape", [(16, 32), (9, 10), (8, 16, 3, 3)])
@pytest.mark.parametrize("fragment", [3, 8])
def test_bytes_are_a_float_a_weight_and_a_bit_a_fragment(shape: tuple[int, ...], fragment: int) -> None:
    constraint = Polarized(fragment=fragment)
    z = constraint.project(torch.randn(shape, generator=torch.Generator().manual_seed(0))).numpy()
    packed = base.pack(constraint.storage, z, **constraint.layout())
    inputs = z[0].size
    assert packed.nbytes == 4 * z.size + -(-shape[0] * -(-inputs // fragment) // 8)


def test_what_lies_is_refused() -> None:
    with pytest.raises(ShapeError, match="a fragment of 2 weights has both signs"):
        base.pack("polarized", np.array([[1.0, -1.0]], np.float32), fragment=2, order="width")
    packed = base.pack("polarized", np.ones((2, 4), np.float32), fragment=2, order="width")
    for change, words in (
        ({"fragment": 0}, "a fragment of 0"),
        ({"fragment": None}, "a fragment of None"),
        ({"order": "depth"}, "order 'depth' is unknown"),
        ({"order": ["width"]}, "is unknown"),
        ({"magnitude": np.full((2, 4), -1, np.float32)}, "below zero"),
    ):
        with pytest.raises(ArtifactError, match=words):
            type(packed)(**{**vars(packed), **change})
