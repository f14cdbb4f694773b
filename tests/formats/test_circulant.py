"""Block-circulant weights, stored: the card-sized examples, the bytes, what is refused."""

import numpy as np
import pytest
import torch

from openwork.constraints.circulant import Circulant
from openwork.errors import ArtifactError, ShapeError
from openwork.formats.packed import base
from openwork.formats.packed.circulant import Circulant as Stored


def test_the_first_column_of_a_block_is_what_is_stored() -> None:
    w = np.array([[1.5, 4.0], [4.0, 1.5]], np.float32)
    packed = base.pack("circulant", w, block=2)
    assert packed.arrays["first"].tolist() == [[[[1.5, 4.0]]]] and packed.nbytes == 8

    first = np.array([1, 2, 3, 4], np.float32)
    columns = np.stack([np.roll(first, c) for c in range(4)], 1)
    assert columns.tolist() == [[1, 4, 3, 2], [2, 1, 4, 3], [3, 2, 1, 4], [4, 3, 2, 1]]
    assert base.pack("circulant", columns, block=4).arrays["first"].tolist() == [[[[1, 2, 3, 4]]]]


@pytest.mark.parametrize(
    ("block", "shape", "grid"),
    [(4, (8, 16), (1, 2, 4)), (4, (9, 6), (1, 3, 2)), (8, (16, 8, 3, 3), (9, 2, 1)), (3, (5, 4, 2, 1), (2, 2, 2))],
)
def test_bytes_are_those_of_one_column_a_block(block: int, shape: tuple[int, ...], grid: tuple[int, ...]) -> None:
    w = Circulant(block=block).project(torch.randn(shape, generator=torch.Generator().manual_seed(0))).numpy()
    packed = base.pack("circulant", w, block=block)
    assert packed.nbytes == 4 * np.prod(grid) * block
    assert np.array_equal(packed.unpack(), w)


def test_a_weight_that_is_not_circulant_is_refused() -> None:
    w = np.zeros((4, 4), np.float32)
    w[3, 2] = 1
    with pytest.raises(ShapeError, match="a block of 4 x 4 is not circulant"):
        base.pack("circulant", w, block=4)


@pytest.mark.parametrize("block", [0, -4, 3, 2.0, "4", None])
def test_a_block_that_does_not_fit_the_array_is_refused(block: object) -> None:
    with pytest.raises(ArtifactError, match="circulant"):
        Stored((8, 8), block, np.zeros((1, 2, 2, 4), np.float32))  # type: ignore[arg-type]
