"""Block columns and block rows: the budget of every block, and the patterns that they are in special cases."""

import itertools

import pytest
import torch
from torch import Tensor

from openwork.constraints.and_ import And
from openwork.constraints.base import largest
from openwork.constraints.block import Block
from openwork.constraints.block_column import BlockColumn
from openwork.constraints.block_row import BlockRow
from openwork.constraints.column import Column
from openwork.constraints.filter import Filter
from openwork.constraints.unstructured import Unstructured
from openwork.errors import ShapeError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def blocks(w: Tensor, p: int, q: int) -> Tensor:
    """[strips, blocks in a strip, p, q]."""
    matrix = w.flatten(1)
    return matrix.unfold(0, p, p).unfold(1, q, q)


@pytest.mark.parametrize("shape", [(16, 32), (8, 16, 3, 3)])
def test_every_block_keeps_exactly_its_share(shape: tuple[int, ...]) -> None:
    w = random(*shape)
    columns = blocks(BlockColumn(shape=(4, 8), sparsity=0.75).project(w), 4, 8)
    assert ((columns != 0).all(2).sum(-1) == 2).all() and ((columns != 0).any(2).sum(-1) == 2).all()
    rows = blocks(BlockRow(shape=(4, 8), sparsity=0.75).project(w), 4, 8)
    assert ((rows != 0).all(3).sum(-1) == 1).all() and ((rows != 0).any(3).sum(-1) == 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_no_choice_of_columns_or_rows_is_nearer(seed: int) -> None:
    """All ways to keep one column (row) in each 2x2 block of a 4x4 weight."""
    w = random(4, 4, seed=seed)
    for constraint, axis in ((BlockColumn(shape=(2, 2), sparsity=0.5), 2), (BlockRow(shape=(2, 2), sparsity=0.5), 3)):
        energy = blocks(w, 2, 2).square().sum(axis).view(4, 2)
        best = max(sum(float(energy[b, c]) for b, c in enumerate(way)) for way in itertools.product(range(2), repeat=4))
        assert float(constraint.project(w).square().sum()) == pytest.approx(best)


def test_one_budget_for_all_makes_them_plain_blocks() -> None:
    w = random(16, 32)
    column = BlockColumn(shape=(4, 8), sparsity=0.8, balanced=False)
    assert torch.equal(column.mask(w), Block(shape=(4, 1), sparsity=0.8).mask(w))
    row = BlockRow(shape=(4, 8), sparsity=0.8, balanced=False)
    assert torch.equal(row.mask(w), Block(shape=(1, 8), sparsity=0.8).mask(w))


def test_one_block_keeps_whole_columns_and_one_column_single_weights() -> None:
    w = random(16, 32)
    assert torch.equal(BlockColumn(shape=(16, 32), sparsity=0.75).mask(w), Column(sparsity=0.75).mask(w))
    assert torch.equal(BlockRow(shape=(16, 32), sparsity=0.75).mask(w), Filter(sparsity=0.75).mask(w))
    single = BlockRow(shape=(16, 1), sparsity=0.75, balanced=False)
    assert torch.equal(single.mask(w), Unstructured(sparsity=0.75).mask(w))


def test_groups_hold_every_weight_once() -> None:
    w = random(8, 12)
    for constraint in (BlockColumn(shape=(4, 6), sparsity=0.5), BlockRow(shape=(4, 6), sparsity=0.5)):
        scores = constraint.scores(w)
        assert float(scores.sum()) == pytest.approx(float(w.double().square().sum()))
        assert constraint.spread(torch.ones(len(scores), dtype=torch.bool), w.shape).all()
        for group in range(len(scores)):
            flags = torch.arange(len(scores)) == group
            assert float(w[constraint.spread(flags, w.shape)].double().square().sum()) == pytest.approx(
                float(scores[group])
            )


def test_a_block_with_too_many_columns_is_no_member_whatever_others_have() -> None:
    w = torch.zeros(4, 8)
    w[:2, :3] = 1
    assert BlockColumn(shape=(2, 4), sparsity=0.5).violations(w) == 1
    assert BlockColumn(shape=(2, 4), sparsity=0.5, balanced=False).violations(w) == 0
    assert BlockRow(shape=(2, 4), sparsity=0.5).violations(w) == 1


def test_columns_of_blocks_and_whole_rows_are_rtmobiles_pattern() -> None:
    both = And(of=(BlockColumn(shape=(4, 8), sparsity=0.75), Filter(sparsity=0.5)))
    z = both.project(random(16, 32))
    assert int(z.any(1).sum()) == 8 and both.violations(z) == 0
    assert both.storage == "bspc" and both.layout() == {"height": 4, "width": 8, "transposed": False}
    assert torch.equal(both.project(z), z)


def test_the_largest_are_chosen_in_each_row_with_ties_to_the_left() -> None:
    scores = torch.tensor([[1.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], [4.0, 3.0, 3.0, 5.0]])
    assert largest(scores, 2).int().tolist() == [[0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]
    assert largest(scores, 3).int().tolist() == [[0, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 1]]
    assert largest(scores, 4).all()


def test_shapes_that_blocks_do_not_fill_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"block_row: in\*kh\*kw = 30 of weight 16x30 is not a multiple of 8"):
        BlockRow(shape=(4, 8), sparsity=0.5).project(torch.ones(16, 30))
