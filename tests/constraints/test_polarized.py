"""Fragments of one sign: what is nearest, short fragments, the order in which a kernel is cut."""

import itertools

import pytest
import torch
from torch import Tensor

from openwork.constraints.polarized import Polarized


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", range(20))
def test_no_choice_of_signs_is_nearer(seed: int) -> None:
    w = random(1, 11, seed=seed)  # fragments of 4, 4 and 3
    found = (w - Polarized(fragment=4).project(w)).square().sum()
    for signs in itertools.product((-1, 1), repeat=3):
        sign = torch.tensor(signs).repeat_interleave(4)[:11]
        assert found <= (w - w * (w * sign > 0)).square().sum() + 1e-12


def test_the_sum_may_choose_the_other_sign_and_is_never_nearer() -> None:
    w = torch.tensor([[3.0, -2.0, -1.5, 0.0]])
    assert torch.equal(Polarized(fragment=4).project(w), torch.tensor([[3.0, 0.0, 0.0, 0.0]]))
    assert torch.equal(Polarized(fragment=4, sign="sum").project(w), torch.tensor([[0.0, -2.0, -1.5, 0.0]]))
    for seed in range(10):
        v = random(6, 16, seed=seed)
        nearest, by_sum = (Polarized(fragment=4, sign=sign).project(v) for sign in ("nearest", "sum"))  # type: ignore[arg-type]
        assert (v - nearest).norm() <= (v - by_sum).norm()
        sums = v.reshape(6, 4, 4).sum(2, keepdim=True)
        assert (by_sum.reshape(6, 4, 4) * sums >= 0).all()


@pytest.mark.parametrize("order", ["channel", "height", "width"])
def test_fragments_run_along_the_axis_that_the_order_names(order: str) -> None:
    w = random(3, 4, 3, 2)
    z = Polarized(fragment=4, order=order).project(w)  # type: ignore[arg-type]
    axes = {"channel": ("kh", "kw", "in"), "height": ("in", "kw", "kh"), "width": ("in", "kh", "kw")}[order]
    size = {"in": 4, "kh": 3, "kw": 2}
    for out in range(3):
        flat = []
        for at in itertools.product(*(range(size[axis]) for axis in axes)):
            place = dict(zip(axes, at, strict=True))
            flat.append((out, place["in"], place["kh"], place["kw"]))
        for begin in range(0, 24, 4):
            part, kept = (torch.stack([t[p] for p in flat[begin : begin + 4]]) for t in (w, z))
            assert kept.min() * kept.max() >= 0
            assert torch.equal(kept, Polarized(fragment=4).project(part[None])[0])


def test_violations_count_fragments_of_both_signs() -> None:
    w = torch.tensor([[1.0, -1.0, 2.0, 3.0], [-1.0, 0.0, -2.0, 1.0]])
    assert Polarized(fragment=2).violations(w) == 2
    assert Polarized(fragment=3).violations(w) == 1 and Polarized(fragment=4).violations(w) == 2


def test_retraining_keeps_zeros_and_signs() -> None:
    member = torch.tensor([[1.0, 0.0, -2.0, -3.0]])
    w = torch.tensor([[-0.5, 4.0, -1.0, 0.5]])
    assert torch.equal(Polarized(fragment=2).hold(w, member), torch.tensor([[0.0, 0.0, -1.0, 0.0]]))
