"""Surrogate Lagrangian relaxation: step sizes, both conditions, and problems whose answer is known."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.block_column import BlockColumn
from openwork.constraints.unstructured import Unstructured
from openwork.errors import UsageError
from openwork.solvers.admm import ADMM
from openwork.solvers.base import State, norm
from openwork.solvers.slr import SLR

HALF = Unstructured(sparsity=0.5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(seed: int = 0, *shape: int) -> Tensor:
    return torch.randn(shape or (2, 4), generator=generator(seed), dtype=torch.float64)


def exact(a: Tensor, solver: SLR | ADMM, state: State) -> Tensor:
    """argmin_W 1/2 ||W - A||^2 + rho/2 ||W - Z + U||^2."""
    rho = state.numbers["rho"]
    return (a + rho * (state.tensors["z"][0] - state.tensors["u"][0])) / (1 + rho)


def distance(a: Tensor, w: Tensor) -> Callable[[], float]:
    return lambda: 0.5 * float((w - a).square().sum())


def test_alpha_is_a_share_that_tends_to_one() -> None:
    solver = SLR(m=300, r=0.1)
    assert [round(solver.alpha(k), 5) for k in (1, 2, 10, 100)] == [0.99667, 0.99682, 0.99792, 0.99939]
    for m, r in itertools.product((1.01, 50.0, 300.0), (0.05, 0.5, 0.95)):
        alphas = [SLR(m=m, r=r).alpha(k) for k in (1, 2, 3, 10, 1000, 10**6)]
        assert all(0 < alpha < 1 for alpha in alphas) and alphas == sorted(alphas)
        assert alphas[0] == pytest.approx(1 - 1 / m)


def test_every_accepted_move_shrinks_step_times_residual_by_alpha() -> None:
    """Both moves of an update, in updates where both are accepted and in those where one is."""
    moves: list[tuple[int, float, float]] = []

    class Watched(SLR):
        def step_size(self, k: int, before: float, residual: float, step: float) -> float:
            found = super().step_size(k, before, residual, step)
            moves.append((k, step * before, found * residual))
            return found

    a, solver = drawn(1), Watched(rho=1.0, step=0.1)
    state = solver.init([a], [HALF])
    product = 0.1 * float((a - HALF.project(a)).norm())
    for update in range(30):
        w = exact(a, solver, state) + (0.01 * drawn(100 + update) if update % 3 else 0)
        state = solver.update([w], [HALF], state, distance(a, w))
    ks = [k for k, _, _ in moves]
    assert len(moves) == state.numbers["accepted"] and 30 < len(moves) < 60, "some are accepted and some are not"
    assert state.numbers["k"] == 1 + len(set(ks)) and ks == sorted(ks)
    for k, old, new in moves:
        assert old == pytest.approx(product, rel=1e-6) and new == pytest.approx(solver.alpha(k) * old, rel=1e-6)
        product = new


def test_exact_solutions_of_the_subproblems_satisfy_both_conditions() -> None:
    for seed in range(20):
        a, solver = drawn(seed), SLR(rho=1.0)
        state, before = solver.init([a], [HALF]), a
        for _ in range(15):
            z, u = state.tensors["z"][0], state.tensors["u"][0]
            w = exact(a, solver, state)

            def whole(w: Tensor, z: Tensor, u: Tensor, a: Tensor = a) -> float:
                return float(0.5 * (w - a).square().sum() + (u * (w - z)).sum() + 0.5 * (w - z).square().sum())

            assert whole(w, z, u) <= whole(before, z, u) + 1e-12
            state = solver.update([w], [HALF], state, distance(a, w))
            # Multipliers after the first move, of which Z is the exact answer.
            target, moved = state.tensors["z"][0], state.tensors["u"][0]
            between = moved - state.numbers["step"] * (w - target)
            assert whole(w, target, between) <= whole(w, z, between) + 1e-12
            before = w


def test_where_both_conditions_fail_everything_stays_bit_for_bit() -> None:
    member = HALF.project(drawn(2))
    solver = SLR(rho=1.0)
    state = solver.update([drawn(3)], [HALF], solver.init([drawn(2)], [HALF]), lambda: 1.0)
    still = replace(state, tensors={"z": (member,), "u": (torch.zeros_like(member),), "before": (member.clone(),)})
    after = solver.update([member], [HALF], still, lambda: 1.0)
    for name in ("z", "u", "before"):
        assert torch.equal(after.tensors[name][0], still.tensors[name][0])
    for name in ("step", "k", "residual", "accepted", "loss"):
        assert after.numbers[name] == still.numbers[name]
    assert after.numbers["tried"] == still.numbers["tried"] + 2
    assert after.numbers["acceptance"] == after.numbers["accepted"] / after.numbers["tried"]


def test_a_loss_that_has_risen_fails_condition_one_and_leaves_condition_two() -> None:
    solver, w = SLR(rho=1.0, step=0.1), drawn(5)
    state = solver.update([w], [HALF], solver.init([w + 1], [HALF]), lambda: 1.0)
    moved = w + 0.1 * drawn(6)
    worse, better = (solver.update([moved], [HALF], state, lambda value=value: value) for value in (50.0, -50.0))  # type: ignore[misc]
    assert better.numbers["accepted"] == state.numbers["accepted"] + 2
    assert worse.numbers["accepted"] == state.numbers["accepted"] + 1
    z = HALF.project(moved + state.tensors["u"][0])
    assert torch.equal(worse.tensors["z"][0], z)
    step = worse.numbers["step"]
    assert torch.allclose(worse.tensors["u"][0], state.tensors["u"][0] + step * (moved - z))
    # What was accepted last is what the next weights are compared with.
    assert torch.equal(worse.tensors["before"][0], w) and worse.numbers["loss"] == 1.0
    assert torch.equal(better.tensors["before"][0], moved) and better.numbers["loss"] == -50.0


def test_a_projection_that_is_worse_than_the_one_before_is_not_taken() -> None:
    """Condition 2 by itself, which an exact projection never fails."""

    class Poor(Unstructured):
        def project(self, w: Tensor) -> Tensor:
            return torch.full_like(w, 9.0)

    solver, w = SLR(rho=1.0), drawn(7)
    state = solver.init([w], [HALF])
    after = solver.update([w], [Poor(sparsity=0.5)], state, lambda: 1.0)
    assert torch.equal(after.tensors["z"][0], state.tensors["z"][0]) and after.numbers["accepted"] == 1


def test_weights_before_are_copies() -> None:
    """The trap: kept by reference they follow the optimizer, and condition 1 compares weights with themselves."""
    solver, w = SLR(rho=1.0), drawn(8)
    state = solver.init([w], [HALF])
    for loss in (1.0, -99.0):
        kept = state.tensors["before"][0].clone()
        w.add_(0.5 * drawn(9))  # in place, as optimizers do
        assert torch.equal(state.tensors["before"][0], kept)
        state = solver.update([w], [HALF], state, lambda loss=loss: loss)  # type: ignore[misc]
        assert torch.equal(state.tensors["before"][0], w) and state.tensors["before"][0].data_ptr() != w.data_ptr()
    # The loss is the same before and after: what decides is the distance from Z, which has grown.
    w.add_(10 * (w - state.tensors["z"][0]))
    assert solver.update([w], [HALF], state, lambda: -99.0).numbers["accepted"] == state.numbers["accepted"] + 1


def test_with_frozen_steps_and_without_the_first_move_it_is_admm() -> None:
    class Frozen(SLR):
        def step_size(self, k: int, before: float, residual: float, step: float) -> float:
            return self.rho

    a, sets = drawn(4, 4, 8), [HALF, Block(shape=(2, 2), sparsity=0.5)]
    mine, theirs = Frozen(rho=0.7), ADMM(rho=0.7)
    x, y = mine.init([a, a], sets), theirs.init([a, a], sets)
    x = replace(x, numbers={**x.numbers, "k": 2, "loss": 0.0})
    for update in range(12):
        w = [a + 0.3 * drawn(50 + update, 4, 8)] * 2
        x, y = mine.update(w, sets, x, lambda: 1e30), theirs.update(w, sets, y)
        for name in ("z", "u"):
            assert all(torch.equal(p, q) for p, q in zip(x.tensors[name], y.tensors[name], strict=True)), update
        assert x.numbers["primal_residual"] == y.numbers["primal_residual"]
        assert torch.equal(mine.penalty(w, sets, x), theirs.penalty(w, sets, y))


@pytest.mark.parametrize(("rho", "least", "most"), [(1.0, 50, 50), (0.1, 0, 5)])
def test_toy_problem_finds_the_support_if_rho_is_large_enough(rho: float, least: int, most: int) -> None:
    """Fifty rows, each a problem by itself."""
    rows = BlockColumn(shape=(1, 8), sparsity=0.5)
    a, solver = drawn(0, 50, 8), SLR(rho=rho, step=0.01, m=300)
    state = solver.init([a], [rows])
    for _ in range(300):
        w = exact(a, solver, state)
        state = solver.update([w], [rows], state, distance(a, w))
    settled = (w - rows.project(w)).norm(dim=1) < 0.1
    assert least <= int(((rows.mask(w) == rows.mask(a)).all(1) & settled).sum()) <= most


@pytest.mark.parametrize("constraint", [HALF, Block(shape=(2, 1), sparsity=0.5)], ids=str)
def test_the_projection_minimizes_what_of_the_lagrangian_depends_on_z(constraint: Constraint) -> None:
    rho = 0.7
    for seed in range(10):
        w, a = drawn(seed), drawn(seed + 100)

        def cost(z: Tensor, w: Tensor = w, a: Tensor = a) -> float:
            return float((a * (w - z)).sum() + rho / 2 * (w - z).square().sum())

        best = torch.inf
        for bits in itertools.product((0.0, 1.0), repeat=8):
            # With its zeros settled, Z is free to be W + A / rho elsewhere.
            z = torch.tensor(bits, dtype=w.dtype).view(2, 4) * (w + a / rho)
            if constraint.violations(z) == 0:
                best = min(best, cost(z))
        assert cost(constraint.project(w + a / rho)) == pytest.approx(best, rel=1e-9)


def test_a_residual_of_zero_keeps_the_step() -> None:
    member = HALF.project(drawn(1))
    solver = SLR(rho=1.0, step=0.03)
    assert solver.update([member], [HALF], solver.init([member], [HALF])).numbers["step"] == 0.03
    assert solver.step_size(1, 0.0, 1.0, 0.03) == solver.step_size(1, 1.0, 0.0, 0.03) == 0.03


def test_residuals_are_over_all_weights_together() -> None:
    w, sets, solver = [drawn(1), drawn(2, 4, 4)], [HALF, Block(shape=(2, 2), sparsity=0.5)], SLR(rho=0.5)
    first = solver.init(w, sets)
    second = solver.update(w, sets, first)
    pairs = zip(w, second.tensors["z"], strict=True)
    assert second.numbers["primal_residual"] == pytest.approx(norm([x - z for x, z in pairs]))
    moved = zip(second.tensors["z"], first.tensors["z"], strict=True)
    assert second.numbers["dual_residual"] == pytest.approx(0.5 * norm([z - before for z, before in moved]))


@pytest.mark.parametrize(
    ("fields", "words"), [({"m": 1.0}, "SLR.m: 1.0"), ({"r": 1.0}, "SLR.r"), ({"step": 0}, "step")]
)
def test_wrong_settings_name_the_field(fields: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SLR(**fields)
