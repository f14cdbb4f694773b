"""Rows and columns that are left, stored: the arrays, the bytes, what is refused."""

import numpy as np
import pytest
import torch

from openwork.constraints.base import Constraint
from openwork.constraints.channel import Channel
from openwork.constraints.column import Column
from openwork.constraints.crossbar import Crossbar
from openwork.constraints.filter import Filter
from openwork.errors import ArtifactError
from openwork.formats.packed import base


def test_what_is_left_is_a_smaller_matrix() -> None:
    w = np.array([[0, 0, 0, 0], [1, 0, 2, -0.0], [0, 0, 3, 0]], np.float32)
    packed = base.pack("kept", w)
    stored = {name: array.tolist() for name, array in packed.arrays.items()}
    assert stored == {"row": [1, 2], "column": [0, 2], "value": [[1, 2], [0, 3]]}
    assert np.array_equal(packed.unpack(), w)
    empty = base.pack("kept", 0 * w)
    assert empty.nbytes == 0 and np.array_equal(empty.unpack(), 0 * w)


@pytest.mark.parametrize(
    ("constraint", "rows", "columns"),
    [
        (Filter(sparsity=0.5), 8, 72),
        (Channel(sparsity=0.5), 16, 36),
        (Column(sparsity=0.75), 16, 18),
        (Crossbar(tile=(32, 4), axis="filter", sparsity=0.7), 4, 72),
        (Crossbar(tile=(32, 4), axis="column", sparsity=0.4), 16, 32),
    ],
    ids=str,
)
def test_bytes_are_those_of_what_is_kept(constraint: Constraint, rows: int, columns: int) -> None:
    w = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    packed = base.pack(constraint.storage, constraint.project(w).numpy(), **constraint.layout())
    assert packed.kind() == "kept" and packed.nbytes == 4 * rows * columns + 2 * (rows + columns)


def test_large_matrices_count_in_32_bits() -> None:
    w = np.zeros((2, 70_000), np.float32)
    w[1, -1] = 1
    packed = base.pack("kept", w)
    assert packed.arrays["column"].dtype == np.int32 and packed.nbytes == 4 + 2 + 4
    assert np.array_equal(packed.unpack(), w)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"row": np.array([2, 1], np.uint16)}, "'row' does not rise"),
        ({"row": np.array([1, 1], np.uint16)}, "'row' does not rise"),
        ({"row": np.array([1, 3], np.uint16)}, "'row' holds numbers outside"),
        ({"column": np.array([0, 4], np.uint16)}, "'column' holds numbers outside"),
        ({"column": np.array([0, 2], np.int32)}, "'column' is int32"),
        ({"value": np.zeros((2, 3), np.float32)}, "'value' is"),
    ],
)
def test_what_lies_is_refused(change: dict[str, np.ndarray], words: str) -> None:
    packed = base.pack("kept", np.array([[0, 0, 0, 0], [1, 0, 2, 0], [0, 0, 3, 0]], np.float32))
    with pytest.raises(ArtifactError, match=words):
        type(packed)(**{**vars(packed), **change})
