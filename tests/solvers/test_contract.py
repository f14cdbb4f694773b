"""What every solver owes, on every constraint: a clean state, gradients that match its penalty, weights left alone."""

import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from openwork import plugins
from openwork.constraints._padded import Padded
from openwork.constraints.and_ import And
from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.circulant import Circulant
from openwork.constraints.unstructured import Unstructured
from openwork.errors import ShapeError
from openwork.solvers.base import Solver, State

EVERY = [cls(**example) for cls in plugins.every("solvers", Solver).values() for example in cls.EXAMPLES]
every = pytest.mark.parametrize("solver", EVERY, ids=str)
SETS: list[Constraint] = [Unstructured(sparsity=0.5), Block(shape=(4, 1), sparsity=0.75)]


def held(constraint: Constraint) -> tuple[int, ...]:
    for shape in [(4, 4), (4, 4, 3, 3), (8, 4, 1, 1), (16, 32), (8, 16, 3, 3)]:
        with contextlib.suppress(ShapeError):
            constraint.check(shape)
            return shape
    raise AssertionError(f"{constraint} holds none of the shapes tested here")


def parts() -> list[tuple[Constraint, tuple[int, ...]]]:
    """What solvers come to see: each constraint by itself, those inside an `And` one by one, and padded ones."""
    found: dict[str, tuple[Constraint, tuple[int, ...]]] = {}
    for cls in plugins.every("constraints", Constraint).values():
        for example in cls.EXAMPLES:
            whole = cls(**example)
            found |= {str(part): (part, held(whole)) for part in whole.parts()}
    for inner in (Block(shape=(4, 3), sparsity=0.5), Circulant(block=3)):
        found[f"{inner}, padded"] = (Padded(inner=inner), (5, 8))
    return list(found.values())


def weights() -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(4, 4, generator=g).requires_grad_(), torch.randn(8, 2, 3, 3, generator=g).requires_grad_()]


def slopes_match(solver: Solver, w: list[Tensor], sets: list[Constraint], state: State, entries: int = 0) -> None:
    """The gradient of the penalty against finite differences, for the first `entries` of each weight or the steepest
    one."""
    penalty = solver.penalty(w, sets, state)
    assert penalty.shape == ()
    if not penalty.requires_grad:
        assert penalty.item() == 0.0
        return
    gradients = torch.autograd.grad(penalty, w)
    step = 1e-6
    for at in range(len(w)):
        for index in range(entries) if entries else [int(gradients[at].abs().argmax())]:
            shifted = [y.detach().clone() for y in w]
            shifted[at].view(-1)[index] += step
            slope = (solver.penalty(shifted, sets, state).item() - penalty.item()) / step
            assert slope == pytest.approx(float(gradients[at].view(-1)[index]), rel=1e-3, abs=1e-4)


def test_the_look_up_finds_all_solvers() -> None:
    assert {"admm", "magnitude", "slr", "reweighted", "group_lasso"} <= set(plugins.every("solvers", Solver))


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
        state = solver.update(w, SETS, state, lambda: 1.0)
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
    slopes_match(solver, w, SETS, solver.update(w, SETS, solver.init(w, SETS)), entries=3)


@every
def test_it_works_on_every_constraint(solver: Solver) -> None:
    """Weights move, penalties are finite and have their gradient, steps leave weights finite, zeros included."""
    for constraint, shape in parts():
        g = torch.Generator().manual_seed(1)
        w = torch.randn(shape, generator=g, dtype=torch.float64).requires_grad_()
        (constraint,) = constraint.fitted([w.detach()])
        state = solver.init([w], [constraint])
        for _ in range(2):
            with torch.no_grad():
                w.add_(0.1 * torch.randn(shape, generator=g, dtype=torch.float64)).view(-1)[-1] = 0.0
            state = solver.update([w], [constraint], state)
            assert all(t.shape == w.shape for group in state.tensors.values() for t in group), constraint
            solver.after_step([w], [constraint], state, 0.1)
            assert bool(w.isfinite().all()), constraint
            slopes_match(solver, [w], [constraint], state)
        with torch.no_grad():
            w.zero_()
        penalty = solver.penalty([w], [constraint], state)
        assert bool(penalty.isfinite()), constraint
        if penalty.requires_grad:
            assert bool(torch.autograd.grad(penalty, w)[0].isfinite().all()), constraint


@every
def test_nothing_pulls_a_member_out_of_its_set(solver: Solver) -> None:
    for constraint in (Unstructured(sparsity=0.5), Circulant(block=4), And(of=(Unstructured(sparsity=0.5),) * 2)):
        w = constraint.project(weights()[0]).requires_grad_()
        sets = list(constraint.parts())
        penalty = solver.penalty([w] * len(sets), sets, solver.init([w] * len(sets), sets))
        if penalty.requires_grad:
            (slope,) = torch.autograd.grad(penalty, w)
            moved = (w - 0.1 * slope).detach()
            assert constraint.violations(moved) == 0 or torch.allclose(constraint.project(moved), moved, atol=1e-6)


@every
def test_metrics_are_numbers_and_the_settings_survive_a_dump(solver: Solver) -> None:
    w = weights()
    metrics = solver.metrics(solver.update(w, SETS, solver.init(w, SETS)))
    assert set(metrics) == set(solver.METRICS)
    assert set(solver.REMEDY) <= set(type(solver).model_fields)
    assert Solver.parse(solver.model_dump(mode="json")) == solver


@every
def test_a_model_without_constrained_weights_costs_nothing(solver: Solver) -> None:
    state = solver.update([], [], solver.init([], []))
    assert float(solver.penalty([], [], state)) == 0.0
    solver.after_step([], [], state, 0.1)


@every
def test_a_state_continues_where_it_was_written_down(solver: Solver) -> None:
    """What a checkpoint does: numbers by way of JSON, tensors as copies."""
    w = [x.detach() for x in weights()]
    state = solver.update(w, SETS, solver.init(w, SETS), lambda: 0.7)
    numbers: dict[str, Any] = json.loads(json.dumps(dict(state.numbers)))
    written = replace(
        state, numbers=numbers, tensors={n: tuple(t.clone() for t in g) for n, g in state.tensors.items()}
    )
    moved = [0.9 * x for x in w]
    one, other = (solver.update(moved, SETS, s, lambda: 0.6) for s in (state, written))
    assert one.numbers == other.numbers
    assert all(
        torch.equal(a, b) for name in one.tensors for a, b in zip(one.tensors[name], other.tensors[name], strict=True)
    )
