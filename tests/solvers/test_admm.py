"""ADMM on problems whose answer is known (properties 3 to 5 of the paper's card, and Boyd's residuals)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.block_column import BlockColumn
from openwork.constraints.circulant import Circulant
from openwork.constraints.unstructured import Unstructured
from openwork.errors import UsageError
from openwork.solvers.admm import ADMM
from openwork.solvers.base import State, norm


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def solve_toy(a: Tensor, constraint: Constraint, solver: ADMM, updates: int = 200) -> tuple[Tensor, State]:
    """min 1/2 ||W - A||^2 s.t. W in S, each W-step solved exactly: W = (A + rho (Z - U)) / (1 + rho)."""
    w, state = a.clone(), solver.init([a], [constraint])
    for _ in range(updates):
        rho, z, u = state.numbers["rho"], state.tensors["z"][0], state.tensors["u"][0]
        w = (a + rho * (z - u)) / (1 + rho)
        state = solver.update([w], [constraint], state)
    return w, state


@pytest.mark.parametrize("rho", [1.0, 2.0, 5.0])
def test_toy_problem_reaches_its_optimum_for_large_rho(rho: float) -> None:
    constraint = Unstructured(sparsity=0.5)
    for seed in range(30):
        a = torch.randn(2, 4, generator=generator(seed), dtype=torch.float64)
        w, state = solve_toy(a, constraint, ADMM(rho=rho))
        wanted = constraint.project(a)
        assert torch.allclose(w, wanted, atol=1e-6)
        # At the fixed point the multiplier balances the gradient of the loss: rho U = A - W.
        assert torch.allclose(rho * state.tensors["u"][0], a - wanted, atol=1e-5)
        assert state.numbers["primal_residual"] < 1e-6 and state.numbers["dual_residual"] < 1e-6


def test_toy_problem_does_not_converge_for_small_rho() -> None:
    """The counterpart that shows the test above can fail: rho must exceed max |dropped| / min |kept|."""
    constraint = Unstructured(sparsity=0.5)
    reached = 0
    for seed in range(30):
        a = torch.randn(2, 4, generator=generator(seed), dtype=torch.float64)
        w, _ = solve_toy(a, constraint, ADMM(rho=0.05))
        reached += torch.allclose(w, constraint.project(a), atol=1e-6)
    assert reached <= 3


def test_penalty_and_its_gradient_match_autograd_of_the_formula() -> None:
    g = generator()
    weights = [
        torch.randn(4, 3, generator=g, requires_grad=True),
        torch.randn(8, 2, 3, 3, generator=g, requires_grad=True),
    ]
    solver = ADMM(rho=0.7)
    z, u = ([torch.randn(w.shape, generator=g) for w in weights] for _ in range(2))
    state = State(tensors={"z": tuple(z), "u": tuple(u)}, numbers={"rho": 0.7})
    penalty = solver.penalty(weights, [Unstructured(sparsity=0.5)] * 2, state)
    (3 * penalty).backward()
    mine = [w.grad.clone() for w in weights]  # type: ignore[union-attr]
    formula = sum(0.35 * (w - a + b).square().sum() for w, a, b in zip(weights, z, u, strict=True))
    theirs = torch.autograd.grad(3 * formula, weights)  # type: ignore[arg-type]
    assert penalty.item() == pytest.approx(formula.item(), rel=1e-5)  # type: ignore[union-attr]
    for a, b, w, target, dual in zip(mine, theirs, weights, z, u, strict=True):
        assert torch.allclose(a, b, rtol=1e-5)
        assert torch.allclose(a, 3 * 0.7 * (w - target + dual), rtol=1e-5)


def test_penalty_adds_to_gradients_that_are_already_there() -> None:
    w = torch.ones(4, 4, requires_grad=True)
    solver, constraint = ADMM(rho=1.0), Unstructured(sparsity=0.5)
    state = solver.init([w], [constraint])
    ((2 * w).sum() + solver.penalty([w], [constraint], state)).backward()
    assert torch.equal(w.grad, 2 + (w - state.tensors["z"][0]).detach())  # type: ignore[arg-type]


def test_a_weight_under_two_constraints_is_pulled_towards_both() -> None:
    w = torch.randn(4, 4, generator=generator(), requires_grad=True)
    sets = [Unstructured(sparsity=0.5), Block(shape=(2, 2), sparsity=0.5)]
    solver = ADMM(rho=1.0)
    state = solver.init([w, w], sets)
    solver.penalty([w, w], sets, state).backward()
    wanted = sum((w - c.project(w)).detach() for c in sets)
    assert torch.allclose(w.grad, wanted, atol=1e-6)  # type: ignore[arg-type]


def test_update_is_the_textbook_step_and_start_is_the_projection() -> None:
    g = generator(3)
    w, constraint, solver = torch.randn(4, 4, generator=g), Block(shape=(2, 2), sparsity=0.5), ADMM(rho=0.3)
    first = solver.init([w], [constraint])
    assert torch.equal(first.tensors["z"][0], constraint.project(w)) and not first.tensors["u"][0].any()
    moved = w + 0.5 * torch.randn(4, 4, generator=g)
    second = solver.update([moved], [constraint], first)
    third = solver.update([w], [constraint], second)
    for before, after, weight in ((first, second, moved), (second, third, w)):
        u, z = before.tensors["u"][0], after.tensors["z"][0]
        assert torch.equal(z, constraint.project(weight + u))
        assert torch.allclose(after.tensors["u"][0] - u, weight - z, atol=1e-6)
        assert after.numbers["primal_residual"] == pytest.approx(float((weight - z).norm()), rel=1e-5)
        assert after.numbers["dual_residual"] == pytest.approx(
            0.3 * float((z - before.tensors["z"][0]).norm()), rel=1e-5
        )


def test_weights_in_the_set_stay_where_they_are() -> None:
    constraint, solver = Unstructured(sparsity=0.75), ADMM(rho=1.0)
    w = constraint.project(torch.randn(4, 4, generator=generator()))
    state = solver.update([w], [constraint], solver.init([w], [constraint]))
    assert torch.equal(state.tensors["z"][0], w) and not state.tensors["u"][0].any()


def test_rho_grows_to_its_cap_and_the_dual_can_follow() -> None:
    w, constraint = torch.randn(4, 4, generator=generator()), Unstructured(sparsity=0.5)
    plain, scaled = ADMM(rho=1.0, growth=2.0, cap=3.0), ADMM(rho=1.0, growth=2.0, cap=3.0, rescale_dual=True)
    a, b = plain.init([w], [constraint]), scaled.init([w], [constraint])
    rhos = []
    for _ in range(3):
        a, b = plain.update([w], [constraint], a), scaled.update([w], [constraint], b)
        rhos.append(a.numbers["rho"])
    assert rhos == [2.0, 3.0, 3.0]
    one = plain.update([w], [constraint], plain.init([w], [constraint])).tensors["u"][0]
    half = scaled.update([w], [constraint], scaled.init([w], [constraint])).tensors["u"][0]
    assert torch.equal(half, one / 2)


def test_balanced_residuals_move_rho_as_boyd_says() -> None:
    """3.4.1: up where the primal residual leads by mu, down where the dual one does; U is scaled the other way."""
    w, constraint = torch.randn(4, 4, generator=generator()), Unstructured(sparsity=0.5)
    solver = ADMM(rho=1.0, policy="balanced", mu=10.0, tau=2.0, cap=4.0, floor=0.25)
    z = constraint.project(w)
    near, apart = z + 0.01 * (w - z), torch.ones_like(w)

    def updated(rho: float, weight: Tensor, before: Tensor) -> State:
        state = State({"z": (before,), "u": (torch.zeros_like(w),)}, {"rho": rho})
        return solver.update([weight], [constraint], state)

    up, down = updated(1.0, w, z), updated(1.0, near, z + apart)
    assert up.numbers["rho"] == 2.0 and down.numbers["rho"] == 0.5
    assert torch.equal(up.tensors["u"][0], (w - z) / 2)
    assert torch.equal(down.tensors["u"][0], (near - constraint.project(near)) * 2)
    assert updated(4.0, w, z).numbers["rho"] == 4.0 and updated(0.25, near, z + apart).numbers["rho"] == 0.25
    even = updated(1.0, w, w)
    assert even.numbers["rho"] == 1.0
    assert even.numbers["primal_residual"] == pytest.approx(even.numbers["dual_residual"])


@pytest.mark.parametrize("rho", [1e-2, 100.0])
def test_balanced_residuals_save_updates_where_sets_are_convex(rho: float) -> None:
    """Ties are a linear space: any rho converges, one that is far off slowly."""
    constraint = Circulant(block=4)
    a = torch.randn(8, 8, generator=generator(), dtype=torch.float64)
    wanted = constraint.project(a)

    def error(solver: ADMM) -> float:
        w, state = a, solver.init([a], [constraint])
        state = State({"z": (torch.zeros_like(a),), "u": state.tensors["u"]}, state.numbers)
        for _ in range(25):
            now, z, u = state.numbers["rho"], state.tensors["z"][0], state.tensors["u"][0]
            w = (a + now * (z - u)) / (1 + now)
            state = solver.update([w], [constraint], state)
        return float((w - wanted).norm())

    assert error(ADMM(rho=rho, policy="balanced")) < 0.05 * error(ADMM(rho=rho, policy="fixed"))


def test_balanced_residuals_raise_a_rho_with_which_weights_never_settle() -> None:
    """Up to where both residuals are alike, within mu; growth goes on until all is settled."""
    rows = BlockColumn(shape=(1, 8), sparsity=0.5)
    a = torch.randn(50, 8, generator=generator(), dtype=torch.float64)
    rhos = [solve_toy(a, rows, ADMM(rho=0.02, policy="balanced", mu=mu))[1].numbers["rho"] for mu in (10, 5, 2)]
    assert 0.02 < rhos[0] < rhos[1] < rhos[2]
    w, state = solve_toy(a, rows, ADMM(rho=0.02, growth=1.1, cap=10.0, rescale_dual=True))
    assert torch.allclose(rows.project(w), w, atol=1e-6) and state.numbers["primal_residual"] < 1e-5


def test_recipes_from_before_there_were_policies_still_grow() -> None:
    old = ADMM.model_validate({"rho": 0.01, "growth": 1.5, "cap": 1000.0, "rescale_dual": False})
    assert old.policy == "growing" and old._next(0.01, 1.0, 0.0) == pytest.approx(0.015)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rho": 0.0}, "ADMM.rho: 0.0"),
        ({"growth": 0.5}, "ADMM.growth: 0.5"),
        ({"rho": 2.0, "cap": 1.0}, "cap 1 is below rho 2"),
        ({"rho": 1e-3, "floor": 0.01, "policy": "balanced"}, "floor 0.01 is above rho 0.001"),
        ({"policy": "balanced", "growth": 1.3}, "growth 1.3 has no effect with policy 'balanced'"),
        ({"policy": "fixed", "growth": 1.3}, "growth 1.3 has no effect with policy 'fixed'"),
        ({"policy": "balanced", "mu": 1.0}, "ADMM.mu: 1.0"),
        ({"policy": "falling"}, "ADMM.policy: 'falling'"),
    ],
)
def test_wrong_settings_name_the_field(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ADMM(**fields)


def test_norm_is_of_the_concatenation() -> None:
    parts = [torch.full((2, 2), 3.0), torch.full((4, 1), 4.0)]
    assert norm(parts) == pytest.approx((4 * 9 + 4 * 16) ** 0.5)
    assert norm([]) == 0.0


def test_the_penalty_builds_no_graph() -> None:
    """What keeps a training step cheap: one node, whose gradients go straight to the weights."""
    weights = [torch.randn(4, 4, requires_grad=True) for _ in range(3)]
    solver = ADMM()
    sets = [Unstructured(sparsity=0.5)] * 3
    node = solver.penalty(weights, sets, solver.init(weights, sets)).grad_fn
    assert node is not None
    assert [type(following).__name__ for following, _ in node.next_functions if following] == ["AccumulateGrad"] * 3
