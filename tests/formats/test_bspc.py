"""BSPC: the worked example field by field, and what a weight takes."""

import numpy as np
import pytest
import torch

from openwork.constraints.and_ import And
from openwork.constraints.block_column import BlockColumn
from openwork.constraints.block_row import BlockRow
from openwork.constraints.filter import Filter
from openwork.errors import ArtifactError
from openwork.formats.packed import base
from openwork.formats.packed.bspc import BSPC

EXAMPLE = np.array([[0, 5, 7, 0], [0, 6, 8, 0], [1, 0, 0, 3], [0, 0, 0, 0]], np.float32)


@pytest.mark.parametrize("transposed", [False, True])
def test_the_worked_example(transposed: bool) -> None:
    w = np.ascontiguousarray(EXAMPLE.T) if transposed else EXAMPLE
    packed = BSPC.pack(w, height=2, width=2, transposed=transposed)
    assert packed.row.tolist() == [0, 1, 2]
    assert packed.strip.tolist() == [0, 2, 3]
    assert packed.block.tolist() == [0, 1, 2, 3, 4]
    assert packed.column.tolist() == [1, 0, 0, 1]
    assert packed.value.tolist() == [5, 6, 7, 8, 1, 3]
    assert np.array_equal(packed.unpack(), w)


@pytest.mark.parametrize("shape", [(32, 64), (16, 8, 3, 3), (30, 50)])
@pytest.mark.parametrize(("height", "width"), [(8, 16), (4, 24), (1, 1), (64, 256)])
@pytest.mark.parametrize("transposed", [False, True])
def test_any_weight_comes_back(shape: tuple[int, ...], height: int, width: int, transposed: bool) -> None:
    random = np.random.default_rng(0)
    w = (random.standard_normal(shape) * (random.random(shape) < 0.1)).astype(np.float32)
    assert np.array_equal(BSPC.pack(w, height=height, width=width, transposed=transposed).unpack(), w)
    nothing = np.zeros(shape, np.float32)
    assert np.array_equal(BSPC.pack(nothing, height=height, width=width, transposed=transposed).unpack(), nothing)


def test_members_take_what_the_formula_says() -> None:
    """Strips of 8 rows and blocks of 16 columns that keep 4; a quarter of the 64 rows is empty."""
    both = And(of=(BlockColumn(shape=(8, 16), sparsity=0.75), Filter(sparsity=0.25)))
    z = both.project(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)))
    packed = base.pack(both.storage, z.numpy(), **both.layout())
    strips, blocks, kept = 8, 8, 4
    assert packed.nbytes == 4 * 48 + 4 * (strips + 1) + 4 * (strips * blocks + 1) + 2 * strips * blocks * kept + 4 * (
        48 * blocks * kept
    )
    assert packed.nbytes < base.pack("csr", z.numpy()).nbytes
    assert np.array_equal(packed.unpack(), z.numpy())


def test_rows_of_blocks_are_stored_once_for_all_their_columns() -> None:
    row = BlockRow(shape=(16, 8), sparsity=0.75)
    z = row.project(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)))
    packed = base.pack(row.storage, z.numpy(), **row.layout())
    assert isinstance(packed, BSPC) and packed.transposed
    assert len(packed.column) == 16 * 4 * 4 and len(packed.value) == int(z.count_nonzero())


def test_files_that_lie_are_refused() -> None:
    fields = vars(BSPC.pack(EXAMPLE, height=2, width=2, transposed=False))
    for name, value, words in [
        ("row", np.array([0, 2, 1], np.int32), "rows do not rise, or lie in another strip"),
        ("row", np.array([0, 1, 4], np.int32), r"'row' holds numbers outside \[0, 4\)"),
        ("column", np.array([1, 2, 0, 1], np.uint16), "columns do not rise within a block, or lie outside it"),
        ("value", np.zeros(5, np.float32), "'value' is float32"),
        ("strip", np.array([0, 2, 4], np.int32), "does not rise from 0 to 3"),
        ("height", 0, "blocks of 0 x 2"),
        ("transposed", 1, "transposed is 1"),
    ]:
        with pytest.raises(ArtifactError, match=words):
            BSPC(**{**fields, name: value})
