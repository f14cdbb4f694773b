"""Blocks with one magnitude, stored: bit by bit, the bytes, what is refused."""

import numpy as np
import pytest
import torch

from openwork.constraints.unified import Unified
from openwork.errors import ArtifactError
from openwork.formats.packed import base


def test_every_kind_of_block_is_stored_as_it_should_be() -> None:
    matrix = np.array([[2, -2, 0, 0, 1, 5], [2, 2, 0, 0, -1, -0.0], [3, -3, 4, 4, 0, 7]], np.float32)
    packed = base.pack("unified", matrix, block=(2, 2))
    stored = {name: array.tolist() for name, array in packed.arrays.items()}
    # blocks: one magnitude, zero, kept; then edges of one row: one magnitude, one magnitude, kept
    assert stored == {
        "kinds": [0b01_10_00_01, 0b10_01],
        "signs": [0b00100010],
        "magnitude": [2, 3, 4],
        "value": [1, 5, -1, 0, 0, 7],
    }
    assert packed.nbytes == 2 + 1 + 4 * (3 + 6)
    assert np.array_equal(packed.unpack(), matrix)


@pytest.mark.parametrize("shape", [(16, 32), (9, 10), (8, 16, 3, 3)])
@pytest.mark.parametrize(("block", "unified", "pruned"), [((4, 4), 1.0, 0.0), ((2, 3), 0.5, 0.25), ((1, 8), 0.5, 0.0)])
def test_bytes_are_those_of_the_formula(
    shape: tuple[int, ...], block: tuple[int, int], unified: float, pruned: float
) -> None:
    constraint = Unified(shape=block, unified=unified, pruned=pruned)
    z = constraint.project(torch.randn(shape, generator=torch.Generator().manual_seed(0))).numpy()
    packed = base.pack(constraint.storage, z, **constraint.layout())
    matrix = z.reshape(len(z), -1)
    bits = [0, 0, 0]  # of kinds, of signs, of floats
    for i in range(0, matrix.shape[0], block[0]):
        for j in range(0, matrix.shape[1], block[1]):
            part = np.abs(matrix[i : i + block[0], j : j + block[1]])
            bits[0] += 2
            if (part == part.flat[0]).all() and part.size > 1 and part.any():
                bits[1] += part.size
                bits[2] += 32
            elif part.any():
                bits[2] += 32 * part.size
    assert packed.nbytes == sum(-(-n // 8) for n in bits)
    assert np.array_equal(packed.unpack(), z)


@pytest.mark.parametrize("block", [(0, 2), (2, -1), (2,), (2, 2, 2), "22", None, (2.0, 2)])
def test_blocks_that_are_none_are_refused(block: object) -> None:
    packed = base.pack("unified", np.ones((4, 4), np.float32), block=(2, 2))
    with pytest.raises(ArtifactError, match="unified: a block of"):
        type(packed)(**{**vars(packed), "block": block})


def test_an_unknown_kind_of_block_is_refused() -> None:
    packed = base.pack("unified", np.ones((4, 4), np.float32), block=(2, 2))
    with pytest.raises(ArtifactError, match="unknown kind"):
        type(packed)(**{**vars(packed), "kinds": np.array([0b01_11_01_01], np.uint8)})
