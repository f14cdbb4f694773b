"""DARB storage: the worked example bit for bit, and what a weight takes."""

import math

import numpy as np
import pytest
import torch

from openwork.constraints.darb import DARB as Constraint
from openwork.errors import ArtifactError
from openwork.formats.packed import base
from openwork.formats.packed.darb import DARB


def test_the_worked_example() -> None:
    w = np.array([[0, -0.9, 0, 0, 0.5, 0, 0, 0], [0, 0, 0, 0, 0.7, 0, 0, 0]], np.float32)
    packed = DARB.pack(w, largest=64)
    assert packed.size.tolist() == [2, 6], "the second row would have one run of any length"
    packed = DARB.pack(w, largest=8)
    assert packed.size.tolist() == [2, 3] and packed.start.tolist() == [0, 2, 3]
    assert packed.value.tolist() == [np.float32(-0.9), np.float32(0.5), np.float32(0.7)]
    assert packed.place.tolist() == [1 | 0 << 2 | 4 << 4]
    assert np.array_equal(packed.unpack(), w)


@pytest.mark.parametrize("shape", [(16, 32), (8, 6, 3, 3), (5, 10)])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.3, 1.0])
def test_any_weight_comes_back(shape: tuple[int, ...], density: float) -> None:
    random = np.random.default_rng(0)
    w = (random.standard_normal(shape) * (random.random(shape) < density)).astype(np.float32)
    assert np.array_equal(DARB.pack(w, largest=64).unpack(), w)


def test_members_take_what_the_formula_says() -> None:
    w = torch.randn(32, 128, generator=torch.Generator().manual_seed(0)) * torch.rand(32, 1).exp()
    (constraint,) = Constraint(sparsity=0.9).fitted([w])
    assert constraint.log2_sizes is not None and len(set(constraint.log2_sizes)) > 1
    z = constraint.project(w).numpy()
    packed = base.pack(constraint.storage, z, **constraint.layout())
    runs = [128 >> size for size in constraint.log2_sizes]
    bits = sum(count * size for count, size in zip(runs, constraint.log2_sizes, strict=True))
    assert packed.nbytes == 5 * 32 + 4 + 4 * sum(runs) + math.ceil(bits / 8)
    assert packed.nbytes < base.pack("csr", z).nbytes and np.array_equal(packed.unpack(), z)


def test_files_that_lie_are_refused() -> None:
    fields = vars(DARB.pack(np.array([[0, 1, 0, 0, 5, 0], [0, 0, 0, 0, 7, 0]], np.float32), largest=8))
    assert fields["size"].tolist() == [2, 3] and fields["start"].tolist() == [0, 2, 3]
    for name, value, words in [
        ("size", np.array([3, 2], np.uint8), "'start' does not follow from 'size'"),
        ("size", np.array([2, 11], np.uint8), r"'size' holds numbers outside \[0, 11\)"),
        ("start", np.array([0, 1, 3], np.int32), "'start' does not follow from 'size'"),
        ("place", np.array([1 | 2 << 2 | 4 << 4], np.uint8), "a place lies behind the end of its row"),
        ("place", np.zeros(2, np.uint8), "'place' is uint8"),
    ]:
        with pytest.raises(ArtifactError, match=words):
            DARB(**{**fields, name: value})
