"""N:M against every mask that a group can have, and along which axis groups run."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openwork.constraints._padded import Padded
from openwork.constraints.nm import NM
from openwork.errors import ShapeError, UsageError

few = st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0])


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8), (1, 3)])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_each_group_keeps_the_best_of_all_its_masks(n: int, m: int, data: st.DataObject) -> None:
    w = torch.tensor(data.draw(st.lists(few, min_size=2 * m, max_size=2 * m))).reshape(1, 2 * m)
    mask = NM(n=n, m=m).mask(w)
    for group, kept in zip(w.reshape(2, m), mask.reshape(2, m), strict=True):
        found = list(itertools.combinations(range(m), n))
        best = max(found, key=lambda at: (sum(group[i].abs().item() for i in at), [-i for i in at]))
        assert kept.nonzero().flatten().tolist() == list(best), "the lowest channels of the largest sum"
    assert int(mask.sum()) == 2 * n


def test_groups_run_along_the_reduction() -> None:
    """Linear weights: the last axis; convolutions: the input channels of one kernel position."""
    w = torch.randn(8, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    mask = NM(n=2, m=4).mask(w)
    assert (mask.reshape(8, 4, 4, 3, 3).sum(2) == 2).all()
    linear = NM(n=2, m=4).mask(w[:, :, 1, 2])
    assert torch.equal(linear, mask[:, :, 1, 2])
    assert NM(n=2, m=4).violations(w) == w.numel() // 2
    assert NM(n=2, m=4).violations(w * mask) == 0


@pytest.mark.parametrize("pattern", [NM(n=1, m=16), NM(n=2, m=4)])
def test_weights_of_half_precision(pattern: NM) -> None:
    w = torch.randn(4, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(pattern.project(w).float(), pattern.project(w.float()))


def test_a_weight_too_many_is_one_violation() -> None:
    w = torch.tensor([[1.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]])
    assert NM().violations(w) == 0
    w[0, 2] = 1.0
    assert NM().violations(w) == 1
    assert NM(n=1, m=4).violations(w) == 2


def test_channels_that_no_group_completes_are_refused_or_padded() -> None:
    w = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ShapeError, match=r"nm: in = 3 of weight 4x3x3x3 is not a multiple of 4.*on_misfit"):
        NM().project(w)
    padded = Padded(inner=NM())
    z = padded.project(w)
    assert z.shape == w.shape and ((z != 0).sum(1) == 2).all() and padded.violations(z) == 0
    assert padded.violations(w) == 4 * 9 and torch.equal(padded.mask(w), z != 0)


def test_padding_completes_channels_before_rows() -> None:
    from openwork.constraints.and_ import And
    from openwork.constraints.block import Block

    both = Padded(inner=And(of=(Block(shape=(4, 2), sparsity=0.25), NM())))
    w = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    z = both.project(w)
    assert z.shape == w.shape and both.violations(z) == 0 and ((z != 0).sum(1) <= 3).all()


def test_keeping_everything_is_no_pattern() -> None:
    with pytest.raises(UsageError, match="n = 4 of m = 4 keeps every weight; choose n below m"):
        NM(n=4, m=4)


def test_relaxing_keeps_more_of_each_group() -> None:
    found = [NM(n=2, m=8).relaxed(share) for share in (0.01, 0.2, 0.5, 0.8, 1.0)]
    assert [None if c is None else c.n for c in found] == [None, 7, 5, 3, 2]
