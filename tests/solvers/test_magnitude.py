"""Magnitude pruning: one cut, or the cubic ramp of Zhu and Gupta."""

import pytest
import torch

from openwork.constraints.unstructured import Unstructured
from openwork.solvers.magnitude import Magnitude


def test_one_shot_masks_are_those_of_the_constraint_from_the_start() -> None:
    w, constraint = torch.randn(8, 8, generator=torch.Generator().manual_seed(0)), Unstructured(sparsity=0.75)
    solver = Magnitude()
    assert torch.equal(solver.masks(solver.init([w], [constraint]))[0], constraint.mask(w))


def test_gradual_sparsity_follows_the_cubic_formula() -> None:
    solver, final, start = Magnitude(gradual=True, ramp=4, start=0.25), 0.8, 0.2
    for t in range(5):
        zhu_gupta = final + (start - final) * (1 - t / 4) ** 3
        assert final * solver.share(t) == pytest.approx(zhu_gupta)
    assert solver.share(9) == 1.0


def test_gradual_cuts_more_at_each_update_and_never_brings_a_weight_back() -> None:
    w, constraint = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)), Unstructured(sparsity=0.9)
    solver = Magnitude(gradual=True, ramp=4)
    state = solver.init([w], [constraint])
    mask = solver.masks(state)[0]
    assert bool(mask.all())
    for t in range(1, 5):
        w = w * mask
        state = solver.update([w], [constraint], state)
        following = solver.masks(state)[0]
        assert not bool((following & ~mask).any())
        assert int(following.sum()) == round(256 * (1 - 0.9 * (1 - (1 - t / 4) ** 3)))
        mask = following
    assert torch.equal(mask, constraint.mask(w))
