"""Blocks with one magnitude: the worked example, what is nearest, and what retraining keeps."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from openwork.constraints.and_ import And
from openwork.constraints.circulant import Circulant
from openwork.constraints.levels import Levels
from openwork.constraints.unified import Unified
from openwork.errors import UsageError


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().sum())


def test_the_worked_example() -> None:
    w = torch.tensor([[1.0, -3.0, 2.0, -2.0]])
    z = Unified(shape=(1, 4), unified=1.0).project(w)
    assert torch.equal(z, torch.tensor([[2.0, -2.0, 2.0, -2.0]]))
    unify, prune = distance(w, z), distance(w, torch.zeros_like(w))
    assert (unify, prune) == (2.0, 18.0) and prune - unify == 4 * 2.0**2


@pytest.mark.parametrize("seed", range(10))
def test_a_unified_block_is_the_nearest_of_all_signs_and_magnitudes(seed: int) -> None:
    w = random(1, 5, seed=seed)
    found = distance(w, Unified(shape=(1, 5), unified=1.0).project(w))
    for signs in itertools.product((-1.0, 1.0), repeat=5):
        for size in np.linspace(0, 3, 301):
            assert found <= distance(w, size * torch.tensor([signs], dtype=torch.float64)) + 1e-12


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("unified", "pruned"), [(0.25, 0.0), (0.5, 0.0), (1.0, 0.0), (0.25, 0.5), (0.5, 0.5)])
def test_which_blocks_are_taken(unified: float, pruned: float, seed: int) -> None:
    """Against every choice of blocks. Without pruning none is nearer; with both, the least energy is pruned first."""
    w = random(4, 6, seed=seed)  # four blocks of 2 x 3
    blocks = [w[i : i + 2, j : j + 3] for i in (0, 2) for j in (0, 3)]
    unify = [distance(b.abs(), b.abs().mean().expand(2, 3)) for b in blocks]
    prune = [float(b.square().sum()) for b in blocks]
    zeros, alike = round(4 * pruned), round(4 * unified)
    costs = {
        choice: sum(prune[b] for b in choice[:zeros]) + sum(unify[b] for b in choice[zeros:])
        for choice in itertools.permutations(range(4), zeros + alike)
    }
    found = distance(w, Unified(shape=(2, 3), unified=unified, pruned=pruned).project(w))
    first = set(sorted(range(4), key=lambda b: prune[b])[:zeros])
    allowed = {c: cost for c, cost in costs.items() if set(c[:zeros]) == first}
    assert found == pytest.approx(min(allowed.values()))
    if not pruned:
        assert found == pytest.approx(min(costs.values()))


def test_edge_blocks_are_smaller_and_their_mean_knows_no_padding() -> None:
    w = random(3, 5)
    z = Unified(shape=(2, 4), unified=1.0).project(w)
    for rows, columns in itertools.product((slice(0, 2), slice(2, 3)), (slice(0, 4), slice(4, 5))):
        size = w[rows, columns].abs().mean()
        torch.testing.assert_close(z[rows, columns], size * w[rows, columns].sign())


def test_it_commutes_with_scales_and_signs() -> None:
    w, constraint = random(8, 12), Unified(shape=(2, 3), unified=0.5, pruned=0.25)
    flips = random(8, 12, seed=1).sign()
    torch.testing.assert_close(constraint.project(3 * w), 3 * constraint.project(w))
    torch.testing.assert_close(constraint.project(flips * w), flips * constraint.project(w))


def test_as_many_blocks_as_asked_for_and_no_sign_changes() -> None:
    w, constraint = random(8, 12), Unified(shape=(2, 3), unified=0.5, pruned=0.25)
    z = constraint.project(w)
    blocks = z.reshape(4, 2, 4, 3).transpose(1, 2).reshape(16, 6).abs()
    zero = (blocks == 0).all(1)
    assert zero.sum() == 4 and ((blocks == blocks[:, :1]).all(1) & ~zero).sum() == 8
    assert ((z == 0) | (z.sign() == w.sign())).all()


def test_retraining_keeps_blocks_signs_and_ties_after_every_step() -> None:
    constraint = Unified(shape=(2, 3), unified=0.5, pruned=0.25)
    member = constraint.project(random(8, 12)).float()
    w = member.clone().requires_grad_()
    optimizer = torch.optim.SGD([w], lr=0.3, momentum=0.9, weight_decay=0.01)
    target = random(8, 12, seed=1).float()
    for _ in range(10):
        optimizer.zero_grad()
        (w - target).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            w.copy_(constraint.hold(w, member))
        assert constraint.violations(w) == 0
        pruned = (member.reshape(4, 2, 4, 3) == 0).all(1, keepdim=True).all(3, keepdim=True)
        assert not w.detach().reshape(4, 2, 4, 3)[pruned.expand(4, 2, 4, 3)].any()
    # what is held is the nearest: the mean along the signs, and no less than zero
    block = torch.tensor([[1.0, -1.0]])
    alike = Unified(shape=(1, 2), unified=1.0)
    assert torch.equal(alike.hold(torch.tensor([[3.0, -1.0]]), block), torch.tensor([[2.0, -2.0]]))
    assert torch.equal(alike.hold(torch.tensor([[-3.0, 1.0]]), block), torch.tensor([[0.0, 0.0]]))


def test_a_block_multiplies_once() -> None:
    w, x = random(4, 8), random(8, seed=1)
    z = Unified(shape=(1, 4), unified=1.0).project(w)
    sums = (z.sign() * x).reshape(4, 2, 4).sum(2)
    torch.testing.assert_close((sums * z.reshape(4, 2, 4)[:, :, 0].abs()).sum(1), z @ x)


def test_violations_count_missing_blocks() -> None:
    constraint = Unified(shape=(1, 2), unified=0.5, pruned=0.5)
    assert constraint.violations(torch.tensor([[0.0, 0.0, 1.0, -1.0]])) == 0
    assert constraint.violations(torch.tensor([[0.0, 0.0, 1.0, 2.0]])) == 1
    assert constraint.violations(torch.tensor([[1.0, 1.0, 1.0, 1.0]])) == 1
    assert constraint.violations(torch.tensor([[1.0, 2.0, 1.0, 3.0]])) == 3


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ({"unified": 0.0}, "unified"),
        ({"unified": 1.5}, "unified"),
        ({"unified": 0.5, "pruned": 1.0}, "pruned"),
        ({"unified": 0.75, "pruned": 0.5}, "together more than 1"),
    ],
)
def test_shares_outside_their_range_are_refused(shares: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Unified(shape=(2, 2), **shares)


def test_two_parts_that_share_numbers_in_other_groups_are_refused() -> None:
    with pytest.raises(UsageError, match="circulant and unified both share numbers between weights"):
        And(of=(Circulant(block=2), Unified(shape=(1, 3), unified=0.25)))
    assert And(of=(Unified(shape=(2, 2), unified=0.5), Levels(bits=2))).shares
