"""FKW: the published layout field by field, its bytes, and that a loop over it convolves."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from openwork.constraints.and_ import And
from openwork.constraints.connectivity import Connectivity
from openwork.constraints.pattern import DESIGNED, Pattern
from openwork.errors import ArtifactError, ShapeError
from openwork.formats.packed import base
from openwork.formats.packed.fkw import FKW

A, B = 0o033, 0o660


def pruned(*shape: int, group: int = 1, seed: int = 0) -> np.ndarray:
    both = And(of=(Pattern(library="designed", group=group), Connectivity(sparsity=0.7, group=group)))
    return both.project(torch.randn(shape, generator=torch.Generator().manual_seed(seed))).numpy()


def kernel(mask: int, first: float) -> np.ndarray:
    """Four values from `first` on at the ones of a mask."""
    found = np.zeros(9, np.float32)
    found[[at for at in range(9) if mask >> at & 1]] = first + np.arange(4)
    return found.reshape(3, 3)


def test_the_published_example() -> None:
    """Filter 0 has pattern B on channel 0 and A on 2; filter 1, which is longer, A on 0 and 1 and B on 2."""
    weight = np.zeros((2, 3, 3, 3), np.float32)
    weight[0, 0], weight[0, 2] = kernel(B, 10), kernel(A, 20)
    weight[1, 0], weight[1, 1], weight[1, 2] = kernel(A, 30), kernel(A, 40), kernel(B, 50)
    packed = FKW.pack(weight, patterns=(A, B))
    assert packed.reorder.tolist() == [1, 0]
    assert packed.offset.tolist() == [0, 3, 5]
    assert packed.index.tolist() == [0, 1, 2, 2, 0]
    assert packed.stride.tolist() == [[0, 2, 3], [0, 1, 2]]
    assert packed.weights.tolist() == [[first + i for i in range(4)] for first in (30, 40, 50, 20, 10)]
    assert packed.patterns.tolist() == [A, B]
    assert np.array_equal(packed.unpack(), weight)
    assert packed.nbytes == 2 * 2 + 4 * 3 + 2 * 2 * 3 + 2 * 5 + 16 * 5 + 2 * 2


@pytest.mark.parametrize(("group", "kernels"), [(1, 154), (4, 38), (8, 19)])
def test_bytes_are_those_of_the_formula(group: int, kernels: int) -> None:
    """Sharing among a group costs one index for all of its kernels."""
    packed = FKW.pack(pruned(16, 32, 3, 3, group=group), patterns=DESIGNED, group=group)
    f, k = 16 // group, len(DESIGNED)
    assert len(packed.index) == kernels
    assert packed.nbytes == 2 * f + 4 * (f + 1) + 2 * f * (k + 1) + 2 * kernels + 16 * group * kernels + 2 * k


def test_longer_filters_come_first_and_each_has_a_run_for_each_pattern() -> None:
    packed = FKW.pack(pruned(16, 32, 3, 3), patterns=DESIGNED)
    lengths = np.diff(packed.offset)
    assert (np.diff(lengths) <= 0).all() and len(set(lengths)) > 1
    assert sorted(packed.reorder) == list(range(16))
    assert (packed.stride[:, -1] == lengths).all() and (np.diff(packed.stride, axis=1) >= 0).all()
    assert packed.stride.shape == (16, len(DESIGNED) + 1)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 0), (2, 1)])
def test_a_loop_over_the_kernels_convolves(stride: int, padding: int) -> None:
    """The loop that the format is made for: positions are constants of a run of kernels."""
    weight = pruned(6, 8, 3, 3)
    weight[2] = 0
    packed = FKW.pack(weight, patterns=DESIGNED)
    x = np.random.default_rng(0).standard_normal((8, 9, 7)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    h, w = ((n + 2 * padding - 3) // stride + 1 for n in x.shape[1:])
    out = np.zeros((6, h, w))
    for i, row in enumerate(packed.reorder):
        for j, mask in enumerate(packed.patterns):
            ones = [divmod(at, 3) for at in range(9) if mask >> at & 1]
            for t in range(packed.offset[i] + packed.stride[i, j], packed.offset[i] + packed.stride[i, j + 1]):
                for value, (dy, dx) in zip(packed.weights[t], ones, strict=True):
                    lines = padded[packed.index[t], dy : dy + stride * h : stride, dx : dx + stride * w : stride]
                    out[row] += value * lines[:h, :w]
    right = functional.conv2d(torch.from_numpy(x)[None], torch.from_numpy(weight), stride=stride, padding=padding)
    np.testing.assert_allclose(out, right[0].numpy(), atol=1e-5)


def test_patterns_may_be_taken_from_the_weight_and_kernels_stored_whole() -> None:
    weight = pruned(8, 16, 3, 3)
    found = FKW.pack(weight, entries=4)
    assert set(found.patterns.tolist()) <= set(DESIGNED) and np.array_equal(found.unpack(), weight)
    whole = FKW.pack(weight)
    assert whole.patterns.tolist() == [0o777] and np.array_equal(whole.unpack(), weight)
    large = FKW.pack(pruned(8, 16, 3, 3).reshape(8, 8, 3, 6), entries=9)
    assert large.patterns.dtype == np.uint64
    empty = FKW.pack(np.zeros((4, 4, 3, 3), np.float32), entries=4)
    assert len(empty.index) == 0 and not empty.unpack().any()


@pytest.mark.parametrize(
    ("shape", "settings", "words"),
    [
        ((4, 4, 3, 3), {"patterns": (A, B)}, "none of the patterns"),
        ((4, 4, 3, 3), {"entries": 4}, "more than entries=4"),
        ((6, 4, 3, 3), {"group": 4}, "no multiple of group=4"),
        ((4, 4, 9, 9), {}, "81 positions"),
        ((4, 40_000), {}, "40000 does not fit.*choose csr"),
    ],
)
def test_weights_that_are_no_members_are_refused(shape: tuple, settings: dict, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        base.pack("fkw", np.ones(shape, np.float32), **settings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"group": 3}, "no multiple of group 3"),
        ({"group": "2"}, "no positive number"),
        ({"reorder": np.zeros(8, np.int16)}, "no permutation"),
        ({"patterns": np.array([A, 0o777], np.uint16)}, "differ in their number of entries"),
        ({"patterns": np.array([A << 6, B], np.uint16)}, r"outside \[1, 512\)"),
        ({"index": None}, "a kernel is stored twice"),
        ({"stride": None}, "does not rise from 0"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(change: dict, words: str) -> None:
    weight = pruned(8, 16, 3, 3)
    packed = FKW.pack(Pattern(library=(A, B)).project(torch.from_numpy(weight)).numpy(), patterns=(A, B))
    content = {**vars(packed), **change}
    if content["index"] is None:
        content["index"] = np.zeros_like(packed.index)
    if content["stride"] is None:
        content["stride"] = packed.stride + np.int16(1)
    with pytest.raises(ArtifactError, match=words):
        FKW(**content)
