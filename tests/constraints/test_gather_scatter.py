"""Gather-scatter sparsity: its definition, exact choice within rows, and the quality of the greedy one."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from openwork.constraints._padded import Padded
from openwork.constraints.gather_scatter import GatherScatter
from openwork.constraints.unstructured import Unstructured
from openwork.engine import _native
from openwork.errors import ShapeError, UsageError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def is_gs(w: Tensor, banks: int, per_row: int) -> bool:
    """The published definition: N non-zeros of a bundle, N * k / B in every row, N / B in every bank."""
    matrix = (w if w.ndim == 2 else w.permute(0, 2, 3, 1).flatten(1)) != 0
    for bundle in matrix.view(-1, banks // per_row, matrix.shape[1]):
        n = int(bundle.sum())
        by_bank = [int(bundle[:, bank::banks].sum()) for bank in range(banks)]
        if n % banks or any(int(row.sum()) * banks != n * per_row for row in bundle) or set(by_bank) != {n // banks}:
            return False
    return True


@pytest.mark.parametrize("shape", [(16, 32), (8, 16, 3, 3)])
@pytest.mark.parametrize(("banks", "per_row"), [(4, 4), (4, 1), (4, 2), (8, 8), (8, 2)])
def test_projections_meet_the_published_definition(shape: tuple[int, ...], banks: int, per_row: int) -> None:
    w = random(*shape)
    constraint = GatherScatter(banks=banks, per_row=per_row, sparsity=0.75)
    z = constraint.project(w)
    assert is_gs(z, banks, per_row) and int(z.count_nonzero()) == w.numel() // 4
    assert constraint.violations(z) == 0 and torch.equal(constraint.project(z), z)
    moved = z.flatten().clone()
    moved[moved.nonzero()[0]] = 0
    moved[(moved == 0).nonzero()[-1]] = 1
    assert not is_gs(moved.view(shape), banks, per_row)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_rows_keep_the_best_of_all_masks(seed: int, groups: int) -> None:
    """Two rows of 8, 4 banks: every way to share the groups, and to choose within each bank."""
    w = random(2, 8, seed=seed)
    by_bank = w.square().view(2, 2, 4)  # row, place, bank

    def best(row: int, count: int) -> float:
        return sum(
            max(sum(float(by_bank[row, at, bank]) for at in some) for some in itertools.combinations(range(2), count))
            for bank in range(4)
        )

    wanted = max(best(0, first) + best(1, groups - first) for first in range(max(0, groups - 2), min(2, groups) + 1))
    constraint = GatherScatter(banks=4, per_row=4, sparsity=1 - groups / 4)
    assert float(constraint.project(w).square().sum()) == pytest.approx(wanted)


@pytest.mark.parametrize("seed", range(4))
def test_the_greedy_choice_is_nearly_the_best_of_all_masks(seed: int) -> None:
    """Two rows of 4, 2 banks, vertical: all masks of one group."""
    w = random(2, 4, seed=seed)
    best = max(float(w[0, a] ** 2 + w[1, b] ** 2) for a, b in itertools.product(range(4), repeat=2) if a % 2 != b % 2)
    z = GatherScatter(banks=2, per_row=1, sparsity=0.75).project(w)
    assert 0.5 * best <= float(z.square().sum()) <= best + 1e-6


@pytest.mark.parametrize(("banks", "per_row"), [(4, 1), (4, 2), (8, 1), (8, 2), (8, 4)])
@pytest.mark.parametrize("groups", [1, 3, 6])
def test_a_bundle_keeps_what_groups_take_one_weight_at_a_time(banks: int, per_row: int, groups: int) -> None:
    height = banks // per_row
    w = random(height, banks * 6, seed=groups)
    kept = torch.zeros_like(w)
    for _ in range(groups):
        in_row, free = [0] * height, [True] * banks
        for place in w.abs().flatten().argsort(descending=True).tolist():
            row, column = divmod(place, w.shape[1])
            if kept[row, column] == 0 and in_row[row] < per_row and free[column % banks]:
                kept[row, column] = w[row, column]
                in_row[row] += 1
                free[column % banks] = False
    constraint = GatherScatter(banks=banks, per_row=per_row, sparsity=1 - groups * banks / w.numel())
    assert torch.equal(constraint.project(w), kept)


def naive_groups(ranked: list[list[list[float]]], banks: int, per_row: int, budget: int) -> list[list[int]]:
    """All groups of each bundle by the definition, then the best of them all: how many weights each list gives."""
    groups = []
    for bundle, lists in enumerate(ranked):
        gone, most = [0] * len(lists), float("inf")
        while True:
            order = sorted(
                (-numbers[at], i) for i, (numbers, at) in enumerate(zip(lists, gone, strict=True)) if at < len(numbers)
            )
            picks: list[int] = []
            for _, i in order:
                fits = sum(i // banks == j // banks for j in picks) < per_row
                if fits and all(i % banks != j % banks for j in picks):
                    picks.append(i)
            if not picks:
                break
            most = min(most, sum(lists[i][gone[i]] ** 2 for i in picks))
            groups.append((-most, bundle, len(groups), picks))
            for i in picks:
                gone[i] += 1
    taken = [[0] * len(lists) for lists in ranked]
    for _, bundle, _, picks in sorted(groups)[:budget]:
        for i in picks:
            taken[bundle][i] += 1
    return taken


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_bundles_share_the_groups_by_what_each_brings(dtype: str, data: st.DataObject) -> None:
    """With many equal weights and zeros, and more groups asked for than there are."""
    banks = data.draw(st.sampled_from([2, 3, 4, 6]))
    per_row = data.draw(st.sampled_from([k for k in (1, 2, 3) if banks % k == 0]))
    bundles, ranks = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    lists = banks // per_row * banks
    numbers = arrays.arrays(dtype, (bundles, lists, ranks), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
    ranked = np.ascontiguousarray(-np.sort(-data.draw(numbers)) + 0.0)
    budget = data.draw(st.integers(0, bundles * ranks * banks + 2))
    taken = np.zeros((bundles, lists), dtype=np.int64)
    _native.take_groups(ranked, banks, per_row, budget, taken)
    assert taken.tolist() == naive_groups(ranked.tolist(), banks, per_row, budget)


@pytest.mark.parametrize(("banks", "counts"), [(3, (2, 8)), (0, (2, 8)), (4, (2, 7)), (4, (1, 8)), (4, (2, 0))])
def test_lists_and_counts_that_do_not_fit_are_refused(banks: int, counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="there must be a"):
        _native.take_groups(np.ones((2, counts[1] and 8, 3), np.float32), banks, 1, 2, np.zeros(counts, np.int64))


@pytest.mark.parametrize(("per_row", "least"), [(8, 0.9), (1, 0.85), (4, 0.85)])
def test_nearly_as_much_is_kept_as_of_single_weights(per_row: int, least: float) -> None:
    w = random(64, 256)
    free = Unstructured(sparsity=0.9).project(w).square().sum()
    assert GatherScatter(banks=8, per_row=per_row, sparsity=0.9).project(w).square().sum() >= least * free


def test_horizontal_members_suit_fewer_banks_too() -> None:
    z = GatherScatter(banks=8, per_row=8, sparsity=0.75).project(random(16, 64))
    assert all(is_gs(z, banks, banks) for banks in (2, 4, 8))
    assert all(GatherScatter(banks=b, per_row=b, sparsity=0.75).violations(z) == 0 for b in (2, 4, 8))


def test_scatter_bundles_rows_of_like_strength() -> None:
    w = random(16, 32) * torch.tensor([3.0, 0.1] * 8)[:, None]
    plain = GatherScatter(banks=8, per_row=1, sparsity=0.75)
    (scatter,) = GatherScatter(banks=8, per_row=1, sparsity=0.75, scatter=True).fitted([w])
    assert scatter.order is not None and {row % 2 for row in scatter.order[:8]} == {0}
    z = scatter.project(w)
    assert is_gs(z[list(scatter.order)], 8, 1) and scatter.violations(z) == 0
    assert z.square().sum() > plain.project(w).square().sum()


def test_banks_are_channels_whatever_the_kernel_position() -> None:
    w = random(4, 8, 3, 3)
    z = GatherScatter(banks=4, per_row=4, sparsity=0.75).project(w)
    matrix = w.permute(0, 2, 3, 1).reshape(4, 72)
    flat = GatherScatter(banks=4, per_row=4, sparsity=0.75).project(matrix)
    assert torch.equal(z.permute(0, 2, 3, 1).reshape(4, 72), flat)


def test_a_weight_too_many_in_a_bank_or_row_takes_another_group() -> None:
    constraint = GatherScatter(banks=4, per_row=1, sparsity=0.875)  # 4 rows of 8: one group
    w = torch.zeros(4, 8)
    for row, column in enumerate((0, 3, 1, 6)):
        w[row, column] = 1
    assert constraint.violations(w) == 0
    crowded = w.clone()
    crowded[3, 6], crowded[3, 5] = 0, 1  # bank 1 twice
    assert constraint.violations(crowded) == 1
    crowded = w.clone()
    crowded[3, 6], crowded[0, 2] = 0, 1  # row 0 twice
    assert constraint.violations(crowded) == 1


def test_shapes_that_banks_do_not_divide_are_refused_or_padded() -> None:
    constraint = GatherScatter(banks=8, per_row=2, sparsity=0.75)
    with pytest.raises(ShapeError, match="gather_scatter: in = 3 of weight 8x3x3x3 is not a multiple of 8"):
        constraint.project(random(8, 3, 3, 3))
    padded = Padded(inner=constraint)
    z = padded.project(random(6, 3, 3, 3))
    assert z.shape == (6, 3, 3, 3) and padded.violations(z) == 0 and z.any()


def test_mistakes_name_their_remedy() -> None:
    with pytest.raises(UsageError, match="per_row = 3 does not divide banks = 8; choose a divisor"):
        GatherScatter(banks=8, per_row=3, sparsity=0.5)
    with pytest.raises(UsageError, match="with scatter only"):
        GatherScatter(sparsity=0.5, order=(0, 1))
    with pytest.raises(UsageError, match=r"order of 2 rows does not name each of 0\.\.1 once"):
        GatherScatter(sparsity=0.5, scatter=True, order=(0, 0))
    with pytest.raises(ShapeError, match="order is of 2 rows, weight 8x8 has 8; leave order out"):
        GatherScatter(sparsity=0.5, scatter=True, order=(1, 0)).project(torch.ones(8, 8))
