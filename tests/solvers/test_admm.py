"""ADMM on problems whose answer is known (properties 3 to 5 of the paper's card, and Boyd's residuals)."""

import pytest
import torch
from torch import Tensor

from openwork.constraints.block import Block
from openwork.constraints.unstructured import Unstructured
from openwork.errors import UsageError
from openwork.solvers.admm import ADMM
from openwork.solvers.base import State, norm


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def solve_toy(a: Tensor, constraint: Unstructured, solver: ADMM, updates: int = 200) -> tuple[Tensor, State]:
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
    penalty = solver.penalty(weights, state)
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
    ((2 * w).sum() + solver.penalty([w], state)).backward()
    assert torch.equal(w.grad, 2 + (w - state.tensors["z"][0]).detach())  # type: ignore[arg-type]


def test_a_weight_under_two_constraints_is_pulled_towards_both() -> None:
    w = torch.randn(4, 4, generator=generator(), requires_grad=True)
    sets = [Unstructured(sparsity=0.5), Block(shape=(2, 2), sparsity=0.5)]
    solver = ADMM(rho=1.0)
    state = solver.init([w, w], sets)
    solver.penalty([w, w], state).backward()
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


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"rho": 0.0}, "ADMM.rho: 0.0"),
        ({"growth": 0.5}, "ADMM.growth: 0.5"),
        ({"rho": 2.0, "cap": 1.0}, "cap 1 is below rho 2"),
    ],
)
def test_wrong_settings_name_the_field(fields: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ADMM(**fields)  # type: ignore[arg-type]


def test_norm_is_of_the_concatenation() -> None:
    parts = [torch.full((2, 2), 3.0), torch.full((4, 1), 4.0)]
    assert norm(parts) == pytest.approx((4 * 9 + 4 * 16) ** 0.5)
    assert norm([]) == 0.0


def test_the_penalty_builds_no_graph() -> None:
    """What keeps a training step cheap: one node, whose gradients go straight to the weights."""
    weights = [torch.randn(4, 4, requires_grad=True) for _ in range(3)]
    solver = ADMM()
    node = solver.penalty(weights, solver.init(weights, [Unstructured(sparsity=0.5)] * 3)).grad_fn
    assert node is not None
    assert [type(following).__name__ for following, _ in node.next_functions if following] == ["AccumulateGrad"] * 3
