"""An order of channels in which n of every m neighbours hold as much of a weight as can be found.

Only which channels share a group counts. The search starts from groups as they are and changes them while the sum of
kept magnitudes grows: by exchanging two channels (`swap`), or by splitting two or three groups anew in the best of all
ways (`pairs`, `triples`).
"""

import itertools
import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

Search = Literal["swap", "pairs", "triples"]
SIZES: dict[Search, int] = {"swap": 1, "pairs": 2, "triples": 3}
SPLITS = 10_000
"""Ways to split groups anew that are tried, at most."""
ROUNDS = 50
"""How often groups are split anew, at most, until none gains."""
ESCAPES = 20
"""How often a few groups are then mixed by lot, to go on from there if it pays."""
MIXED = 4
"""How many groups that are."""
WORK = 1 << 27
"""Elements that sums are taken of in a round, at most: of more pairs or triples, as many as that by lot."""
LOT = 1 << 22
"""Elements that are worked on at a time, so that intermediate results stay in the cache."""


def search(magnitude: Tensor, n: int, m: int, how: Search = "swap") -> tuple[int, ...]:
    """The order found for `magnitude` [rows, channels], float64 and >= 0; m divides the channels, n < m."""
    groups = torch.arange(magnitude.shape[1]).view(-1, m)
    size = min(SIZES[how], len(groups))
    groups = _swapped(magnitude, groups, n) if size == 1 else _regrouped(magnitude, groups, n, size)
    # Of orders that mean the same, the one nearest to the natural order.
    groups = groups.sort(dim=1).values
    return tuple(groups[groups[:, 0].argsort()].flatten().tolist())


def kept(magnitude: Tensor, groups: Tensor, n: int) -> Tensor:
    """What each group [groups, m] of channels keeps: the sum of its n largest in every row."""
    return magnitude[:, groups].topk(n, dim=2).values.sum((0, 2))


def splits(m: int, size: int) -> int:
    """Ways to make `size` groups of m out of their channels: orders within a group and of groups do not count."""
    # The first channel that has no group yet chooses its m - 1 companions.
    return math.prod(math.comb(m * left - 1, m - 1) for left in range(1, size + 1))


def _swapped(magnitude: Tensor, groups: Tensor, n: int) -> Tensor:
    """`groups` after exchanges of two channels, the best first, until none gains."""
    groups, (count, m) = groups.clone(), groups.shape
    channels = count * m
    home, held = torch.empty(channels, dtype=torch.long), torch.empty(channels, channels, dtype=torch.float64)
    value = kept(magnitude, groups, n)
    stale = torch.arange(count)
    while len(stale):
        for group in stale.tolist():
            home[groups[group]] = group
            held[groups[group]] = _with_another(magnitude, groups[group], n)
        gain = held + held.T - value[home][:, None] - value[home]
        gain[home[:, None] == home] = 0
        # Of two groups only the best exchange can happen in a round.
        blocks = gain[groups.flatten()][:, groups.flatten()].view(count, m, count, m).transpose(1, 2).flatten(2)
        best, place = blocks.max(dim=2)
        found = []
        for a, b in _disjoint(best.triu(1), value.sum()):
            i, j = divmod(int(place[a, b]), m)
            groups[a, i], groups[b, j] = groups[b, j].clone(), groups[a, i].clone()
            found += [a, b]
        stale = torch.tensor(found, dtype=torch.long)
        value[stale] = kept(magnitude, groups[stale], n)
    return groups


def _with_another(magnitude: Tensor, group: Tensor, n: int) -> Tensor:
    """[m, channels]: what `group` keeps if its i-th channel is replaced by channel j.

    In a row, the others keep their n - 1 largest, and the larger of their n-th and the newcomer.
    """
    rest = torch.stack([magnitude[:, group[torch.arange(len(group)) != i]] for i in range(len(group))])
    top = rest.topk(n, dim=2).values
    last = top[..., -1]
    # max(x, y) = (x + y + |x - y|) / 2, summed over rows: the last term is a distance.
    larger = (last.sum(1)[:, None] + magnitude.sum(0) + torch.cdist(last, magnitude.T.contiguous(), p=1)) / 2
    return top[..., :-1].sum((1, 2))[:, None] + larger


def _disjoint(gain: Tensor, scale: Tensor) -> list[tuple[int, int]]:
    """Places of positive numbers in the matrix `gain`, largest first, no row or column shared."""
    least = max(float(gain.max()) * 1e-5, float(scale) * 1e-12)
    places = (gain > least).nonzero()
    places = places[gain[places[:, 0], places[:, 1]].argsort(descending=True, stable=True)]
    used: set[int] = set()
    found = []
    for a, b in places.tolist():
        if used.isdisjoint((a, b)):
            used |= {a, b}
            found.append((a, b))
    return found


def _regrouped(magnitude: Tensor, groups: Tensor, n: int, size: int) -> Tensor:
    """`groups` after splitting sets of `size` groups in the best of all ways, the most gainful first."""
    count, m = groups.shape
    splitter = _Splitter(magnitude, n, torch.combinations(torch.arange(count), size), *_ways(m, size))
    groups = splitter.settle(groups, torch.ones(count, dtype=torch.bool))
    # Triples get past most ends that pairs are stuck in by themselves.
    for _ in range(ESCAPES if size == 2 < count else 0):
        trial, stale = groups.clone(), torch.randperm(count, generator=splitter.lots) < MIXED
        mixed = groups[stale].flatten()
        trial[stale] = mixed[torch.randperm(len(mixed), generator=splitter.lots)].view(-1, m)
        trial = splitter.settle(trial, stale)
        if kept(magnitude, trial, n).sum() > kept(magnitude, groups, n).sum():
            groups = trial
    return groups


class _Splitter:
    """Splits sets of groups anew."""

    def __init__(self, magnitude: Tensor, n: int, sets: Tensor, subsets: Tensor, ways: Tensor) -> None:
        self.magnitude, self.n, self.sets, self.subsets, self.ways = magnitude, n, sets, subsets, ways
        self.most = max(1, WORK // (len(subsets) * len(magnitude)))
        self.lots = torch.Generator().manual_seed(0)

    def settle(self, groups: Tensor, stale: Tensor) -> Tensor:
        """`groups` after as many rounds as gain, if no set gains without a group that is `stale`."""
        groups = groups.clone()
        value = kept(self.magnitude, groups, self.n)
        for _ in range(ROUNDS):
            tried = self.sets[stale[self.sets].any(1)]
            tried = tried[torch.randperm(len(tried), generator=self.lots)[: self.most]]
            columns = groups[tried].flatten(1)
            best, way = self._best(columns)
            gain, stale = best - value[tried].sum(1), torch.zeros_like(stale)
            for at in gain.argsort(descending=True, stable=True).tolist():
                if gain[at] <= float(value.sum()) * 1e-12:
                    break
                if not stale[tried[at]].any():
                    groups[tried[at]] = columns[at][self.subsets[self.ways[way[at]]]]
                    stale[tried[at]] = True
            if not stale.any():
                break
            value[stale] = kept(self.magnitude, groups[stale], self.n)
        return groups

    def _best(self, columns: Tensor) -> tuple[Tensor, Tensor]:
        """Of each row of `columns` [sets, size*m], what its best split keeps and which way that is."""
        step = max(1, LOT // (len(self.ways) + columns.shape[1] * len(self.magnitude)))
        found = [
            _subset_sums(self.magnitude[:, some].permute(2, 1, 0).contiguous(), self.subsets, self.n)[:, self.ways]
            .sum(2)
            .max(1)
            for some in torch.split(columns, step)
        ]
        return torch.cat([best for best, _ in found]), torch.cat([way for _, way in found])


def _ways(m: int, size: int) -> tuple[Tensor, Tensor]:
    """All subsets of m out of size*m places [subsets, m], in lexical order, and all splits as their numbers
    [ways, size]."""
    subsets = list(itertools.combinations(range(m * size), m))
    number = {subset: at for at, subset in enumerate(subsets)}

    def split(places: frozenset[int]) -> Iterator[list[int]]:
        if not places:
            yield []
            return
        first = min(places)
        for others in itertools.combinations(sorted(places - {first}), m - 1):
            for more in split(places - {first, *others}):
                yield [number[first, *others], *more]

    return torch.tensor(subsets), torch.tensor(list(split(frozenset(range(m * size)))))


def _subset_sums(columns: Tensor, subsets: Tensor, n: int) -> Tensor:
    """[sets, subsets]: the sum over rows of the n largest of each subset of `columns` [places, sets, rows]."""
    # Subsets grow place by place, and share what their beginnings have in common: the n largest so far, sorted.
    known: dict[tuple[int, ...], list[Tensor]] = {(): []}
    found = []
    for subset in map(tuple, subsets.tolist()):
        for end in range(1, len(subset) + 1):
            if subset[:end] not in known:
                known = {head: top for head, top in known.items() if head == subset[: len(head)]}
                known[subset[:end]] = _inserted(known[subset[: end - 1]], columns[subset[end - 1]], n)
        found.append(torch.stack([top.sum(1) for top in known[subset]]).sum(0))
    return torch.stack(found, dim=1)


def _inserted(top: list[Tensor], new: Tensor, n: int) -> list[Tensor]:
    """The n largest of `top`, sorted from the largest, and `new`."""
    result = []
    for held in top:
        result.append(torch.maximum(held, new))
        new = torch.minimum(held, new)
    return [*result, new][:n]
