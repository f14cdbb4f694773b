"""What every solver owes: a clean state, gradients that match its penalty, weights left alone."""

import pytest
import torch

from openwork import plugins
from openwork.constraints.block import Block
from openwork.constraints.unstructured import Unstructured
from openwork.solvers.base import Solver

EVERY = [cls(**example) for cls in plugins.every("solvers", Solver).values() for example in cls.EXAMPLES]
every = pytest.mark.parametrize("solver", EVERY, ids=str)
SETS = [Unstructured(sparsity=0.5), Block(shape=(4, 1), sparsity=0.75)]


def weights() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(4, 4, generator=g).requires_grad_(), torch.randn(8, 2, 3, 3, generator=g).requires_grad_()]


def test_the_look_up_finds_all_solvers() -> None:
    assert {"admm", "magnitude"} <= set(plugins.every("solvers", Solver))


@every
def test_state_is_of_constants_that_share_no_memory_with_weights(solver: Solver) -> None:
    w = weights()
    before = [x.detach().clone() for x in w]
    state = solver.init(w, SETS)
    for _ in range(2):
        for group in state.tensors.values():
            assert [t.shape for t in group] == [x.shape for x in w]
            assert not any(t.requires_grad for t in group)
            assert {t.data_ptr() for t in group}.isdisjoint({x.data_ptr() for x in w})
        assert all(isinstance(value, (int, float)) for value in state.numbers.values())
        state = solver.update(w, SETS, state)
    assert all(torch.equal(a, b) for a, b in zip(before, w, strict=True))


@every
def test_update_leaves_the_old_state_as_it_was(solver: Solver) -> None:
    w = weights()
    state = solver.init(w, SETS)
    copy = {name: [t.clone() for t in group] for name, group in state.tensors.items()}
    numbers = dict(state.numbers)
    solver.update([x.detach() + 1 for x in w], SETS, state)
    assert dict(state.numbers) == numbers
    for name, group in state.tensors.items():
        assert all(torch.equal(a, b) for a, b in zip(group, copy[name], strict=True))


@every
def test_gradient_of_the_penalty_matches_finite_differences(solver: Solver) -> None:
    w = [x.detach().double().requires_grad_() for x in weights()]
    state = solver.update(w, SETS, solver.init(w, SETS))
    penalty = solver.penalty(w, state)
    assert penalty.shape == ()
    if not penalty.requires_grad:
        assert penalty.item() == 0.0
        return
    penalty.backward()
    step = 1e-6
    for x in w:
        for index in range(3):
            shifted = [y.detach().clone() for y in w]
            shifted[[y is x for y in w].index(True)].view(-1)[index] += step
            slope = (solver.penalty(shifted, state).item() - penalty.item()) / step
            assert slope == pytest.approx(float(x.grad.view(-1)[index]), abs=1e-4)  # type: ignore[union-attr]


@every
def test_metrics_are_numbers_and_the_settings_survive_a_dump(solver: Solver) -> None:
    w = weights()
    metrics = solver.metrics(solver.update(w, SETS, solver.init(w, SETS)))
    assert set(metrics) == set(solver.METRICS)
    assert Solver.parse(solver.model_dump(mode="json")) == solver


@every
def test_a_model_without_constrained_weights_costs_nothing(solver: Solver) -> None:
    state = solver.update([], [], solver.init([], []))
    assert float(solver.penalty([], state)) == 0.0
