"""Density-adaptive regular blocks: the choice within runs, and the sizes that rows get."""

import itertools

import pytest
import torch
from torch import Tensor

from openwork.constraints.darb import DARB
from openwork.constraints.nm import NM
from openwork.errors import ShapeError, UsageError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def uneven(rows: int, columns: int) -> Tensor:
    """Rows of quite different strength."""
    return random(rows, columns) * torch.linspace(0.3, 3, rows)[:, None]


def test_every_run_keeps_exactly_one_weight() -> None:
    w = uneven(16, 64)
    (settled,) = DARB(sparsity=0.9).fitted([w])
    assert settled.log2_sizes is not None
    for row, size in zip(settled.mask(w), settled.log2_sizes, strict=True):
        assert (row.view(-1, 1 << size).sum(1) == 1).all() and int(row.sum()) == 64 >> size


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_no_other_choice_keeps_more(seed: int, size: int) -> None:
    w = random(1, 8, seed=seed)
    runs = w.abs().view(-1, 1 << size)
    best = max(
        sum(float(run[at]) ** 2 for run, at in zip(runs, way, strict=True))
        for way in itertools.product(range(1 << size), repeat=len(runs))
    )
    z = DARB(sparsity=0.5, smallest=1, log2_sizes=(size,)).project(w)
    assert float(z.square().sum()) == pytest.approx(best)


def test_runs_of_one_keep_everything_and_runs_of_a_row_one_weight() -> None:
    w = random(2, 8)
    assert DARB(sparsity=0.5, smallest=1, log2_sizes=(0, 0)).mask(w).all()
    assert DARB(sparsity=0.5, log2_sizes=(3, 3)).mask(w).sum(1).tolist() == [1, 1]
    assert DARB(sparsity=0.5, log2_sizes=(5, 5)).mask(w).sum(1).tolist() == [1, 1]
    ties = DARB(sparsity=0.5, log2_sizes=(2,)).mask(torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, -1.0, 1.0, 0.0]]))
    assert ties.nonzero()[:, 1].tolist() == [0, 4], "the leftmost of equals"


def test_sizes_fall_as_density_rises() -> None:
    w = uneven(32, 256)
    (settled,) = DARB(sparsity=0.9).fitted([w])
    strong = w.abs() >= w.abs().flatten().sort().values[round(0.9 * w.numel())]
    by_density = [settled.log2_sizes[row] for row in strong.sum(1).argsort(descending=True).tolist()]
    assert by_density == sorted(by_density) and len(set(by_density)) >= 3


@pytest.mark.parametrize("sparsity", [0.75, 0.8, 0.9, 0.95, 0.98])
def test_the_budget_is_met_and_nearly_used(sparsity: float) -> None:
    w = uneven(64, 256)
    z = DARB(sparsity=sparsity).project(w)
    assert 0.8 * (1 - sparsity) * w.numel() <= int(z.count_nonzero()) <= round((1 - sparsity) * w.numel())
    assert DARB(sparsity=0.999).project(w).count_nonzero() == 64 * 4, "one in `largest` stays"


def test_rows_of_equal_density_have_one_size_which_is_one_of_m() -> None:
    w = random(1, 64).repeat(8, 1)
    (settled,) = DARB(sparsity=1 - 6 / 64).fitted([w])
    assert settled.log2_sizes == (4,) * 8
    assert torch.equal(settled.mask(w), NM(n=1, m=16).mask(w))


def test_uneven_rows_keep_more_than_with_one_size() -> None:
    w = uneven(64, 256)
    (settled,) = DARB(sparsity=15 / 16).fitted([w])
    assert settled.project(w).square().sum() > NM(n=1, m=16).project(w).square().sum()


def test_runs_of_convolutions_follow_the_channels() -> None:
    w = random(8, 16, 3, 3)
    matrix = w.permute(0, 2, 3, 1).reshape(8, 144)
    constraint = DARB(sparsity=0.9)
    assert torch.equal(constraint.project(w).permute(0, 2, 3, 1).reshape(8, 144), constraint.project(matrix))


def test_violations_count_weights_and_runs_beyond_what_is_allowed() -> None:
    settled = DARB(sparsity=0.5, log2_sizes=(2, 3))
    w = torch.tensor([[1.0, 0, 0, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0]])
    assert settled.violations(w) == 0
    w[1, 5] = 1
    assert settled.violations(w) == 1
    assert DARB(sparsity=0.75, largest=8).violations(w) == 0, "4 runs of 16 weights"
    assert DARB(sparsity=0.8, largest=8).violations(w) == 1, "3 runs"
    w[0, 1] = 1
    assert DARB(sparsity=0.75, largest=8).violations(w) == 1


def test_mistakes_name_value_and_limit() -> None:
    with pytest.raises(UsageError, match=r"DARB\.smallest: 3 is not a power of two"):
        DARB(sparsity=0.5, smallest=3)
    with pytest.raises(UsageError, match="smallest = 64 is above largest = 8"):
        DARB(sparsity=0.5, smallest=64, largest=8)
    with pytest.raises(ShapeError, match="log2_sizes is of 2 rows, weight 4x8 has 4; leave it out"):
        DARB(sparsity=0.5, log2_sizes=(2, 2)).project(torch.ones(4, 8))
