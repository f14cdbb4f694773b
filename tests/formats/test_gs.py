"""Gather-scatter storage: the worked examples field by field, colours against their bound, and what a weight takes."""

import numpy as np
import pytest
import torch

from openwork.constraints.gather_scatter import GatherScatter
from openwork.errors import ArtifactError
from openwork.formats.packed import base
from openwork.formats.packed.gs import GS


def with_weights(rows: int, columns: int, places: list[tuple[int, int]]) -> np.ndarray:
    w = np.zeros((rows, columns), np.float32)
    for at, (row, column) in enumerate(places):
        w[row, column] = at + 1
    return w


def test_the_worked_example_of_one_row() -> None:
    w = with_weights(1, 16, [(0, 4), (0, 7), (0, 13), (0, 14)])
    packed = GS.pack(w, banks=4, per_row=4)
    assert packed.index.tolist() == [[4, 7, 13, 14]] and packed.value.tolist() == [[1, 2, 3, 4]]
    assert packed.start.tolist() == [0, 1]
    assert np.array_equal(packed.unpack(), w)


def test_the_worked_example_of_four_rows() -> None:
    w = with_weights(4, 8, [(0, 0), (1, 3), (2, 1), (3, 6)])
    packed = GS.pack(w, banks=4, per_row=1)
    assert packed.index.tolist() == [[0, 3, 1, 6]] and packed.value.tolist() == [[1, 2, 3, 4]]
    assert np.array_equal(packed.unpack(), w)


@pytest.mark.parametrize("shape", [(16, 32), (8, 12, 3, 3), (7, 10), (6, 3, 3, 3)])
@pytest.mark.parametrize(("banks", "per_row"), [(4, 4), (4, 1), (8, 2), (16, 16), (2, 1)])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
def test_any_weight_comes_back_in_as_few_groups_as_can_be(
    shape: tuple[int, ...], banks: int, per_row: int, density: float
) -> None:
    random = np.random.default_rng(0)
    w = (random.standard_normal(shape) * (random.random(shape) < density)).astype(np.float32)
    packed = GS.pack(w, banks=banks, per_row=per_row)
    assert np.array_equal(packed.unpack(), w)

    height, channel = banks // per_row, np.arange(shape[1])
    for bundle, groups in enumerate(np.diff(packed.start)):
        taken = w[bundle * height : (bundle + 1) * height] != 0
        in_row = taken.reshape(len(taken), -1).sum(1).max()
        in_bank = max(taken[:, channel % banks == bank].sum() for bank in range(banks))
        assert groups == max(-(-in_row // per_row), in_bank)


@pytest.mark.parametrize("example", [(8, 8, False), (8, 1, False), (8, 1, True), (8, 4, True)])
def test_members_take_what_the_formula_says(example: tuple[int, int, bool]) -> None:
    banks, per_row, scatter = example
    constraint = GatherScatter(banks=banks, per_row=per_row, sparsity=0.75, scatter=scatter)
    w = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    (constraint,) = constraint.fitted([w])
    z = constraint.project(w).numpy()
    packed = base.pack(constraint.storage, z, **constraint.layout())
    assert isinstance(packed, GS) and np.array_equal(packed.unpack(), z)
    assert len(packed.value) <= 32 * 64 // 4 // banks
    bundles = 32 * per_row // banks
    assert packed.nbytes == len(packed.value) * banks * 6 + 4 * (bundles + 1) + (4 * 32 if scatter else 0)


def test_files_that_lie_are_refused() -> None:
    packed = GS.pack(with_weights(4, 8, [(0, 0), (1, 3), (2, 1), (3, 6)]), banks=4, per_row=1, order=(3, 1, 0, 2))
    fields = vars(packed)
    for name, value, words in [
        ("index", np.array([[0, 4, 1, 6]], np.uint16), "a group does not have each bank once"),
        ("index", np.array([[0, 3, 1, 10]], np.uint16), r"'index' holds numbers outside \[0, 8\)"),
        ("order", np.array([0, 0, 1, 2], np.int32), "'order' does not name each row once"),
        ("start", np.array([0, 2], np.int32), "does not rise from 0 to 1"),
        ("per_row", 3, "3 of 4 in a row is no pattern"),
    ]:
        with pytest.raises(ArtifactError, match=words):
            GS(**{**fields, name: value})
