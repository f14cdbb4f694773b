"""Orders of channels: what the search reaches, and that a permuted set is the set of permuted weights."""

import itertools

import pytest
import torch
from torch import Tensor

from openwork.constraints import _channel_order
from openwork.constraints.and_ import And
from openwork.constraints.base import Constraint
from openwork.constraints.block import Block
from openwork.constraints.levels import Levels
from openwork.constraints.nested import Nested
from openwork.constraints.nm import NM
from openwork.constraints.permuted import Permuted
from openwork.constraints.unified import Unified
from openwork.errors import ShapeError, UsageError
from openwork.formats.packed import base


def random(rows: int, columns: int, seed: int) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def kept(w: Tensor, constraint: Permuted | NM) -> float:
    return float(constraint.project(w).double().abs().sum())


def efficacy(w: Tensor, search: str) -> float:
    """The share of what 2:4 loses against the best half of each row that an order brings back, percent."""
    (found,) = Permuted(of=NM(), search=search).fitted([w])
    natural, best = kept(w, NM()), float(w.double().abs().topk(w.shape[1] // 2, dim=1).values.sum())
    return 100 * (kept(w, found) - natural) / (best - natural)


@pytest.mark.parametrize(("search", "published", "seeds"), [("swap", 32.1, 12), ("pairs", 35.5, 6)])
def test_the_search_reaches_what_is_published_for_random_weights(search: str, published: float, seeds: int) -> None:
    found = [efficacy(random(128, 64, seed), search) for seed in range(seeds)]
    assert sum(found) / seeds >= published - 1


@pytest.mark.slow
def test_triples_reach_what_is_published_for_random_weights() -> None:
    assert sum(efficacy(random(128, 64, seed), "triples") for seed in range(4)) / 4 >= 36.6 - 1


@pytest.mark.parametrize("seed", range(4))
def test_two_groups_are_split_in_the_best_of_35_ways(seed: int) -> None:
    w = random(16, 8, seed)
    every = [(0, *some, *(set(range(8)) - {0, *some})) for some in itertools.combinations(range(1, 8), 3)]
    assert len(every) == _channel_order.splits(4, 2) == 35 and _channel_order.splits(4, 3) == 5775
    best = max(kept(w, Permuted(of=NM(), order=order)) for order in every)
    (found,) = Permuted(of=NM(), search="pairs").fitted([w])
    assert kept(w, found) == pytest.approx(best)


def test_sums_of_subsets_are_those_of_a_sort() -> None:
    columns = random(6, 5, 0).abs().view(6, 5, 1).repeat(1, 1, 7).double()
    columns += random(6, 35, 1).view(6, 5, 7)
    subsets, ways = _channel_order._ways(3, 2)
    found = _channel_order._subset_sums(columns, subsets, 2)
    for at, subset in enumerate(subsets):
        assert torch.allclose(found[:, at], columns[subset].topk(2, dim=0).values.sum((0, 2)))
    assert all(sorted(subsets[way].flatten().tolist()) == list(range(6)) for way in ways) and len(ways) == 10


def test_the_gain_of_an_exchange_is_what_it_brings() -> None:
    w = random(10, 12, 0).abs().double()
    held = _channel_order._with_another(w, torch.tensor([0, 3, 5, 7]), 2)
    for i, j in itertools.product(range(4), range(12)):
        group = torch.tensor([0, 3, 5, 7])
        group[i] = j
        assert torch.allclose(held[i, j], _channel_order.kept(w, group[None], 2)[0])


@pytest.mark.parametrize(("n", "m", "search"), [(2, 4, "swap"), (2, 4, "pairs"), (1, 4, "swap"), (1, 3, "triples")])
def test_no_order_is_worse_than_the_natural_one(n: int, m: int, search: str) -> None:
    for seed in range(3):
        w = random(8, 24, seed)
        (found,) = Permuted(of=NM(n=n, m=m), search=search).fitted([w])
        assert kept(w, found) >= kept(w, NM(n=n, m=m))
    assert Permuted(of=NM(n=n, m=m), search=search).fitted([torch.ones(8, 24)])[0].order == tuple(range(24))


def test_convolutions_share_one_order_over_all_kernel_positions() -> None:
    w = random(8, 16 * 9, 0).view(8, 16, 3, 3)
    (found,) = Permuted(of=NM()).fitted([w])
    assert found.order is not None and len(found.order) == 16
    assert kept(w, found) > kept(w, NM())
    assert torch.equal(found.project(w)[:, list(found.order)], NM().project(w[:, list(found.order)]))


def test_each_layer_of_a_rule_has_its_own_order() -> None:
    first, second = Permuted(of=NM()).fitted([random(8, 16, 0), random(8, 32, 1)])
    assert len(first.order) == 16 and len(second.order) == 32


def test_members_are_stored_with_their_order() -> None:
    w = random(8, 16, 0)
    (found,) = Permuted(of=NM()).fitted([w])
    packed = base.pack(found.storage, found.project(w).numpy(), **found.layout())
    assert packed.kind() == "nm" and packed.nbytes == 64 * 4 + 64 // 4 + 16 * 2
    assert torch.equal(torch.from_numpy(packed.unpack()), found.project(w))


def test_a_permutation_of_the_neighbour_leaves_the_network_as_it_is() -> None:
    """Channels in the order of the pattern, and the layer before with its outputs in that order."""
    first, second, x = random(16, 8, 0), random(8, 16, 1), random(4, 8, 2)
    (found,) = Permuted(of=NM()).fitted([second])
    z, order = found.project(second), list(found.order or ())
    assert torch.allclose(torch.relu(x @ first.T) @ z.T, torch.relu(x @ first[order].T) @ z[:, order].T, atol=1e-6)
    assert NM().violations(z[:, order]) == 0


def test_ties_are_held_in_the_order_of_the_channels() -> None:
    order, w = (2, 0, 3, 1), random(4, 4, 0)
    tied = Unified(shape=(2, 2), unified=1.0)
    permuted = Permuted(of=tied, order=order)
    member = permuted.project(w)
    inner = tied.holder(member[:, list(order)])
    for ours, theirs in zip(permuted.holder(member), inner, strict=True):
        assert torch.equal(ours(w)[:, list(order)], theirs(w[:, list(order)]))


@pytest.mark.parametrize(
    "inner",
    [
        Levels(bits=2),
        And(of=(NM(), Levels(bits=2))),
        Nested(of=Block(shape=(1, 2), sparsity=0.5), sparser=(0.75,)),
    ],
    ids=str,
)
def test_levels_stand_beside_it(inner: Constraint) -> None:
    with pytest.raises(UsageError, match="levels and nested sparsity cannot be permuted; put them beside"):
        Permuted(of=inner, order=(1, 0))
    w = random(4, 8, 0)
    (both,) = And(of=(Permuted(of=NM()), Levels(bits=2))).fitted([w])
    assert both.violations(both.project(w)) == 0


def test_mistakes_name_their_remedy() -> None:
    with pytest.raises(UsageError, match="no order can be searched for 'block'; give the order, or choose nm"):
        Permuted(of=Block(shape=(1, 2), sparsity=0.5))
    with pytest.raises(UsageError, match=r"order of 3 channels does not name each of 0\.\.2 once"):
        Permuted(of=NM(), order=(0, 0, 2))
    with pytest.raises(UsageError, match=r"triples of groups of 8 can be split in .* choose search 'swap'"):
        Permuted(of=NM(n=2, m=8), search="triples")
    with pytest.raises(ShapeError, match="order is of 4 channels, weight 2x8 has 8; leave order out"):
        Permuted(of=NM(), order=(0, 1, 2, 3)).project(torch.ones(2, 8))
