"""Reweighted regularization: factors, groups, descent, and ratios that are found."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.constraints._padded import Padded
from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.block_column import BlockColumn
from openwork.constraints.block_row import BlockRow
from openwork.constraints.channel import Channel
from openwork.constraints.circulant import Circulant
from openwork.constraints.column import Column
from openwork.constraints.connectivity import Connectivity
from openwork.constraints.filter import Filter
from openwork.constraints.unstructured import Unstructured
from openwork.errors import UsageError
from openwork.solvers.base import State
from openwork.solvers.reweighted import Reweighted

HALF = Unstructured(sparsity=0.5)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def soft(a: Tensor, threshold: Tensor | float) -> Tensor:
    """argmin_w 1/2 (w - a)^2 + threshold |w|."""
    return a.sign() * (a.abs() - threshold).clamp(min=0)


def factors(solver: Reweighted, w: Tensor, constraint: Constraint) -> Tensor:
    return solver.init([w], [constraint]).tensors["p"][0]


def test_it_descends_on_the_sum_of_logarithms() -> None:
    """Majorize, minimize: exact steps never raise f + strength * sum log(|w| + eps)."""
    solver = Reweighted(strength=0.05, power=1, eps=0.01, times=20)
    for seed in range(10):
        a = drawn(seed, 4, 8)

        def objective(w: Tensor, a: Tensor = a) -> float:
            return float(0.5 * (w - a).square().sum() + 0.05 * (w.abs() + 0.01).log().sum())

        w, state, found = a.clone(), solver.init([a], [HALF]), [objective(a)]
        for _ in range(20):
            w = soft(a, 0.05 * state.tensors["p"][0])
            found.append(objective(w))
            state = solver.update([w], [HALF], state)
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(found))
        assert found[-1] < found[0] - 0.1 and bool((w == 0).any()) and bool((w != 0).any())


@pytest.mark.parametrize("power", [1, 2])
def test_factors_are_positive_and_fall_with_the_norm(power: Any) -> None:
    solver = Reweighted(power=power, eps=1e-3)
    w = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.3, 0.4, 0.0], [3.0, 4.0, 12.0]])
    p = factors(solver, w, Filter(sparsity=0.5))
    norms = torch.tensor([0.0, 0.1, 0.5, 13.0])
    assert torch.allclose(p, (1 / (norms**power + 1e-3))[:, None].expand(4, 3))
    assert bool((p > 0).all() and p.isfinite().all())
    assert p[0, 0].item() == p.max().item() == pytest.approx(1000.0)
    assert not p.requires_grad


def test_equal_factors_are_the_ordinary_lasso() -> None:
    solver = Reweighted(strength=0.3, power=1)
    w = drawn(0, 4, 6).requires_grad_()
    for constraint, norms in (
        (HALF, lambda w: w.abs()),
        (Filter(sparsity=0.5), lambda w: w.norm(dim=1)),
        (Column(sparsity=0.5), lambda w: w.norm(dim=0)),
    ):
        state = State(tensors={"p": (torch.full((4, 6), 2.0, dtype=torch.float64),)}, numbers={"strength": 0.3})
        mine, theirs = solver.penalty([w], [constraint], state), 0.3 * 2.0 * norms(w).sum()
        assert mine.item() == pytest.approx(theirs.item())
        assert torch.allclose(torch.autograd.grad(mine, w)[0], torch.autograd.grad(theirs, w)[0])


def test_factors_are_taken_anew_so_many_times_and_stay_in_between() -> None:
    solver = Reweighted(times=2, every=3)
    state, changes = solver.init([drawn(0, 4, 4)], [HALF]), []
    for update in range(1, 13):
        before = state.tensors["p"][0]
        state = solver.update([drawn(update, 4, 4)], [HALF], state)
        if not torch.equal(before, state.tensors["p"][0]):
            changes.append(update)
    assert changes == [3, 6]


@pytest.mark.parametrize(
    ("constraint", "groups"),
    [
        (Filter(sparsity=0.5), [[0, 1, 2], [3, 4, 5]]),
        (Channel(sparsity=0.5), [[0, 3], [1, 4], [2, 5]]),
        (Column(sparsity=0.5), [[0, 3], [1, 4], [2, 5]]),
        (Connectivity(sparsity=0.5), [[0], [1], [2], [3], [4], [5]]),
        (HALF, [[0], [1], [2], [3], [4], [5]]),
        (Block(shape=(2, 3), sparsity=0.5), [[0, 1, 2, 3, 4, 5]]),
    ],
    ids=str,
)
@pytest.mark.parametrize("power", [1, 2])
def test_norms_are_over_the_groups_of_the_constraint(
    constraint: Constraint, groups: list[list[int]], power: Any
) -> None:
    w = torch.arange(1.0, 7.0).view(2, 3, 1, 1)
    solver = Reweighted(strength=0.5, power=power)
    state = solver.init([w], [constraint])
    flat = w.flatten()
    wanted = 0.0
    for group in groups:
        size = float(flat[group].norm()) ** power
        wanted += 0.5 * size / (size + solver.eps)
    assert solver.penalty([w], [constraint], state).item() == pytest.approx(wanted, rel=1e-6)


def test_columns_and_filters_of_a_convolution() -> None:
    w = drawn(3, 4, 2, 3, 3)
    assert torch.allclose(Column(sparsity=0.5).group_norms(w)[:, 1, 2, 0], w[:, 1, 2, 0].norm().expand(4))
    assert torch.allclose(Filter(sparsity=0.5).group_norms(w)[2], w[2].norm().expand(2, 3, 3))
    assert torch.allclose(Connectivity(sparsity=0.5).group_norms(w)[2, 1], w[2, 1].norm().expand(3, 3))


@pytest.mark.parametrize("shape", [(4, 6), (5, 7)], ids=["whole", "padded"])
@pytest.mark.parametrize(
    "constraint",
    [
        Block(shape=(2, 3), sparsity=0.5),
        BlockColumn(shape=(2, 3), sparsity=0.34),
        BlockRow(shape=(4, 2), sparsity=0.5, balanced=False),
    ],
    ids=str,
)
def test_groups_of_blocks_are_a_partition_and_padding_adds_nothing(
    constraint: Constraint, shape: tuple[int, int]
) -> None:
    """Every weight is in one group: shares of the groups' energies add up to that of the matrix."""
    w = drawn(1, *shape)
    held = constraint if shape == (4, 6) else Padded(inner=constraint)
    norms, sizes = held.group_norms(w), held.group_norms(torch.ones_like(w)).square()
    assert torch.allclose((norms.square() / sizes).sum(), w.square().sum())
    # A group is where the norm reacts to a weight: as many weights as its size says.
    changed = w.clone()
    changed[0, 0] += 5.0
    assert int((held.group_norms(changed) != norms).sum()) == round(float(sizes[0, 0]))


def test_block_columns_of_transformers_shrink_by_whole_columns_of_blocks() -> None:
    """Reweighted group lasso with the rows and columns of blocks as groups, on a problem solved in closed form."""
    constraint = BlockColumn(shape=(2, 4), sparsity=0.5)
    a = drawn(2, 4, 8)
    solver = Reweighted(strength=0.1, power=1, eps=1e-3, times=6)
    w, state = a.clone(), solver.init([a], [constraint])
    for _ in range(6):
        norms = constraint.group_norms(a)
        w = a * (1 - 0.1 * state.tensors["p"][0] / norms).clamp(min=0)
        state = solver.update([w], [constraint], state)
    columns = w.view(2, 2, 8)
    gone = (columns == 0).all(1)
    assert torch.equal(gone, (columns == 0).any(1)), "a column of a block goes as a whole"
    assert 0 < int(gone.sum()) < gone.numel()
    kept = constraint.group_norms(a).view(2, 2, 8)[:, 0]
    assert kept[gone].max() < kept[~gone].min(), "the smallest go first"
    # One block as wide as the matrix is ordinary column pruning; blocks of width 1 and height 1 are single weights.
    assert torch.equal(BlockColumn(shape=(4, 8), sparsity=0.5).group_norms(a), Column(sparsity=0.5).group_norms(a))
    single = BlockRow(shape=(4, 1), sparsity=0.5, balanced=False).group_norms(a)
    assert torch.allclose(single, HALF.group_norms(a))


def test_a_strength_of_zero_is_plain_training_bit_for_bit() -> None:
    w = drawn(0, 4, 4).requires_grad_()
    solver = Reweighted(strength=0.0)
    penalty = solver.penalty([w], [HALF], solver.init([w], [HALF]))
    plain = torch.autograd.grad((w**3).sum(), w)[0]
    assert penalty.item() == 0.0
    assert torch.equal(torch.autograd.grad((w**3).sum() + penalty, w)[0], plain)


@pytest.mark.parametrize("power", [1, 2])
def test_the_gradient_at_groups_of_zeros_is_zero(power: Any) -> None:
    w = torch.zeros(4, 4).index_fill(0, torch.tensor([1]), 1.0).requires_grad_()
    solver, sets = Reweighted(power=power, strength=1.0), [Filter(sparsity=0.5)]
    slope = torch.autograd.grad(solver.penalty([w], sets, solver.init([w], sets)), w)[0]
    assert bool(slope.isfinite().all()) and not slope[[0, 2, 3]].any() and bool((slope[1] > 0).all())


def test_bounded_it_leaves_alone_what_the_constraint_keeps() -> None:
    w = drawn(5, 4, 4).requires_grad_()
    constraint = Block(shape=(2, 2), sparsity=0.5)
    solver = Reweighted(strength=1.0, bounded=True)
    slope = torch.autograd.grad(solver.penalty([w], [constraint], solver.init([w], [constraint])), w)[0]
    assert torch.equal(slope != 0, ~constraint.mask(w))
    # The bound follows the weights.
    moved = w.detach().flip(0)
    state = solver.update([moved], [constraint], solver.init([w], [constraint]))
    assert torch.equal(state.tensors["p"][0] != 0, ~constraint.mask(moved))


def test_bounded_it_reaches_the_projection_of_the_optimum() -> None:
    """min 1/2 ||W - A||^2: what is to go goes, what stays is not shortened, so that the cut costs nothing."""
    a, constraint = drawn(6, 4, 8), Filter(sparsity=0.5)
    solver = Reweighted(strength=20.0, power=1, bounded=True)
    state = solver.init([a], [constraint])
    w = a * (1 - 20.0 * state.tensors["p"][0] / constraint.group_norms(a)).clamp(min=0)
    assert torch.equal(w, constraint.project(a))


def test_of_weights_that_are_tied_the_distance_from_the_set_vanishes() -> None:
    constraint, a = Circulant(block=4), drawn(7, 4, 4)
    solver = Reweighted(strength=0.5, times=50, eps=0.05)
    w = a.clone().requires_grad_()
    state = solver.init([w], [constraint])
    assert torch.equal(state.tensors["z"][0], constraint.project(a))
    optimizer = torch.optim.SGD([w], lr=0.05)
    for _ in range(50):
        for _ in range(5):
            optimizer.zero_grad()
            (0.5 * (w - a).square().sum() + solver.penalty([w], [constraint], state)).backward()
            optimizer.step()
        state = solver.update([w], [constraint], state)
    found = w.detach()
    assert float((found - constraint.project(found)).norm()) < 0.2 * float((a - constraint.project(a)).norm())
    assert float(found.norm()) > 0.8 * float(constraint.project(a).norm())


@pytest.mark.parametrize("target", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("constraint", [HALF, Filter(sparsity=0.5)], ids=str)
def test_the_strength_is_bisected_to_the_target(target: float, constraint: Constraint) -> None:
    """On min 1/2 ||W - A||^2, solved exactly between updates: the ratio comes within one group of the target."""
    a = drawn(8, 16, 16)
    solver = Reweighted(strength=1e-6, power=1, target=target, times=0)
    state, norms = solver.init([a], [constraint]), constraint.group_norms(a)
    for _ in range(60):
        w = a * (1 - state.numbers["strength"] * state.tensors["p"][0] / norms).clamp(min=0)
        state = solver.update([w], [constraint], state)
    group = 1 / 256 if constraint is HALF else 1 / 16
    assert state.numbers["ratio"] == pytest.approx(target, abs=1.01 * group)
    assert state.numbers["low"] < state.numbers["high"]


def test_the_ratio_counts_weights_in_groups_that_are_nearly_gone() -> None:
    w = torch.ones(4, 6)
    w[1], w[2] = 1e-3, 0.0
    solver = Reweighted(near=0.01)
    constraint = Filter(sparsity=0.5)
    assert solver.update([w], [constraint], solver.init([w], [constraint])).numbers["ratio"] == 0.5
    assert solver.update([1e-6 * w], [constraint], solver.init([w], [constraint])).numbers["ratio"] == 0.5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"strength": -1.0}, "Reweighted.strength: -1"),
        ({"power": 3}, "Reweighted.power: 3"),
        ({"eps": 0.0}, "Reweighted.eps"),
        ({"target": 1.0}, r"Reweighted.target: 1 is not in \(0, 1\)"),
    ],
)
def test_wrong_settings_name_the_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Reweighted(**fields)
