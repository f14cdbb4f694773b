"""Group lasso: the step is the proximal operator, and descent comes to the minimum that is known."""

import pytest
import torch
from torch import Tensor

from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.circulant import Circulant
from openwork.constraints.column import Column
from openwork.constraints.filter import Filter
from openwork.constraints.unstructured import Unstructured
from openwork.errors import UsageError
from openwork.solvers.group_lasso import GroupLasso

SETS: list[Constraint] = [
    Unstructured(sparsity=0.5),
    Filter(sparsity=0.5),
    Column(sparsity=0.5),
    Block(shape=(2, 2), sparsity=0.5),
]
every = pytest.mark.parametrize("constraint", SETS, ids=str)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def groups(constraint: Constraint) -> list[list[int]]:
    """Of a 4x4 matrix, written down."""
    at = [[4 * row + column for column in range(4)] for row in range(4)]
    return {
        "unstructured": [[i] for i in range(16)],
        "filter": at,
        "column": [list(column) for column in zip(*at, strict=True)],
        "block": [[at[r][c], at[r][c + 1], at[r + 1][c], at[r + 1][c + 1]] for r in (0, 2) for c in (0, 2)],
    }[constraint.kind()]


def stepped(w: Tensor, constraint: Constraint, solver: GroupLasso, rate: float) -> Tensor:
    w = w.clone()
    solver.after_step([w], [constraint], solver.init([w], [constraint]), rate)
    return w


@every
def test_a_step_is_the_closed_form(constraint: Constraint) -> None:
    v, threshold = drawn(0, 4, 4), 0.5 * 0.8
    found = stepped(v, constraint, GroupLasso(strength=0.8), 0.5).flatten()
    for group in groups(constraint):
        part = v.flatten()[group]
        shrunk = part * max(0.0, 1 - threshold * len(group) ** 0.5 / float(part.norm()))
        assert torch.allclose(found[group], shrunk, rtol=1e-12)
        assert bool((found[group] == 0).all()) == bool((shrunk == 0).all()), "zeros are exact"


@every
def test_no_other_point_has_a_smaller_proximal_objective(constraint: Constraint) -> None:
    """argmin_W 1/2 ||W - V||^2 + t * strength * sum sqrt(|g|) ||W_g||, by search around the answer."""
    v, threshold = drawn(1, 4, 4), 0.4
    w = stepped(v, constraint, GroupLasso(strength=0.8), 0.5)

    def objective(x: Tensor) -> float:
        lengths = sum(len(g) ** 0.5 * float(x.flatten()[g].norm()) for g in groups(constraint))
        return 0.5 * float((x - v).square().sum()) + threshold * lengths

    least = objective(w)
    for seed in range(200):
        for scale in (1e-3, 0.1, 1.0):
            assert objective(w + scale * drawn(seed + 10, 4, 4)) >= least
    for keep in groups(constraint):  # whole groups brought back or dropped
        for value in (torch.zeros_like(v), v):
            other = w.clone().flatten()
            other[keep] = value.flatten()[keep]
            assert objective(other.view(4, 4)) >= least - 1e-12


@every
def test_descent_comes_to_the_minimum(constraint: Constraint) -> None:
    """f = 1/2 ||W - A||^2, whose minimum with the penalty is the soft threshold of A."""
    a, solver = drawn(2, 4, 4), GroupLasso(strength=0.4)
    w = torch.zeros(4, 4, dtype=torch.float64)
    state = solver.init([w], [constraint])
    for _ in range(200):
        w -= 0.2 * (w - a)
        solver.after_step([w], [constraint], state, 0.2)
    wanted = stepped(a, constraint, GroupLasso(strength=0.4), 1.0)
    assert torch.allclose(w, wanted, atol=1e-9) and torch.equal(w == 0, wanted == 0)
    assert solver.update([w], [constraint], state).numbers["ratio"] == float((wanted == 0).double().mean())


def test_bounded_it_shortens_what_the_constraint_would_cut() -> None:
    v, constraint = drawn(3, 4, 4), Filter(sparsity=0.5)
    w = stepped(v, constraint, GroupLasso(strength=0.3, bounded=True), 1.0)
    mask = constraint.mask(v)
    assert torch.equal(w[mask], v[mask])
    assert torch.equal(w[~mask], stepped(v, constraint, GroupLasso(strength=0.3), 1.0)[~mask])


def test_tied_weights_move_to_the_nearest_member() -> None:
    constraint, v = Circulant(block=4), drawn(4, 4, 4)
    z = constraint.project(v)
    w = stepped(v, constraint, GroupLasso(strength=0.1), 1.0)
    assert torch.allclose(w - z, (v - z).sign() * ((v - z).abs() - 0.1).clamp(min=0))
    assert torch.allclose(stepped(v, constraint, GroupLasso(strength=100.0), 1.0), z)


def test_a_weight_under_two_constraints_is_shortened_by_both() -> None:
    v, sets, solver = drawn(5, 4, 4), [Filter(sparsity=0.5), Column(sparsity=0.5)], GroupLasso(strength=0.2)
    w = v.clone()
    solver.after_step([w, w], sets, solver.init([w, w], sets), 1.0)
    assert torch.allclose(w, stepped(stepped(v, sets[0], solver, 1.0), sets[1], solver, 1.0))


def test_no_strength_and_no_weights_change_nothing() -> None:
    v = drawn(6, 4, 4)
    v[0] = 0.0
    assert torch.equal(stepped(v, Filter(sparsity=0.5), GroupLasso(strength=0.0), 1.0), v)
    zeros = torch.zeros(4, 4)
    assert torch.equal(stepped(zeros, Filter(sparsity=0.5), GroupLasso(strength=1.0), 1.0), zeros)


def test_the_learning_rate_must_be_known() -> None:
    w, constraint, solver = drawn(7, 4, 4), Filter(sparsity=0.5), GroupLasso()
    with pytest.raises(UsageError, match=r"needs the learning rate: give Shaper the optimizer, or step\(\) the rate"):
        solver.after_step([w], [constraint], solver.init([w], [constraint]), None)
