"""Quantization levels in one dimension: intervals and centres that lie nearest to the numbers in each row of a matrix.

Levels are symmetric: an interval times the numbers of a grid, which rise from 0 or more, and their negatives. So only
magnitudes count, and sums over them are differences of prefix sums of sorted rows.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from .base import ascending

MOST = 1 << 18
"""Numbers of a row that a search looks at; of longer rows every so many."""
WORK = 1 << 19
"""Look-ups in sorted rows at a time, about."""
STRIP = 1 << 16
"""Numbers that are worked on at a time, so that intermediate results stay in the cache."""
STAGES = ((0.05, 1.1, 12), (1 / 1.25, 1.25, 8), (1 / 1.04, 1.04, 8))
"""From, to, and how many: intervals tried around the one whose largest level is the largest magnitude, then around the
best of these, more and more closely."""
ROUNDS = 8
"""How often levels and interval are fitted to each other, at most."""
MEANS = 25
"""How often the values of a codebook move to the mean of what is nearest to them, at most."""
BITS = 40
"""Of the whole numbers in which multiples are looked for."""
PROBE = 1 << 10
"""Numbers of a row that mostly tell already that it has many different ones."""
COMPARED = 16
"""Up to how many edges it is quicker to compare with each than to search among them."""


class Magnitudes:
    """Magnitudes of each row, rising, with their prefix sums; zeros are left out if `zeros_stay`."""

    def __init__(self, rows: Tensor, zeros_stay: bool) -> None:
        self.size = sampled(rows.abs(), MOST)
        self.first = (self.size == 0).sum(1, keepdim=True) * zeros_stay
        self.sums = _prefix(self.size)
        self.total, self.count = self.sums[:, -1:], self.size.shape[1]

    def moments(self, interval: Tensor, grid: Tensor) -> tuple[Tensor, Tensor]:
        """<V, Q> and <Q, Q>, where Q [rows, n] are the nearest numbers of `grid` [levels] to V / interval: for every
        interval [rows, tries]."""
        edges = interval[:, :, None] * ((grid[1:] + grid[:-1]) / 2)
        # Of a number between two levels either may be taken, so that edges need no more digits than numbers have.
        place = torch.searchsorted(self.size, edges.flatten(1).to(self.size.dtype)).maximum(self.first)
        above = (self.total - self.sums.gather(1, place)).view_as(edges)
        along = grid[0] * self.total + (above * grid.diff()).sum(2)
        number = (self.count - self.first) * grid[0].square()
        square = number + ((self.count - place).view_as(edges) * grid.square().diff()).sum(2)
        return along, square


def ternary(ordered: Tensor) -> Tensor:
    """argmin over a and Q in {-1, 0, 1} of ||V - a Q||^2 for each row of magnitudes, which rise, [rows, 1]: with the t
    largest, whose sum is s, the distance is ||V||^2 - s^2 / t and a = s / t."""
    total = best = interval = ordered.new_zeros((len(ordered), 1), dtype=torch.float64)
    count = 0
    for some in reversed(torch.split(ordered, max(1, STRIP // len(ordered)), 1)):
        sums = some.flip(1).double().cumsum_(1).add_(total)
        t = torch.arange(count + 1, count + some.shape[1] + 1, device=ordered.device)
        gain, at = (sums.square() / t).max(1, keepdim=True)
        interval = torch.where(gain > best, sums.gather(1, at) / (count + at + 1), interval)
        best, total, count = best.maximum(gain), sums[:, -1:], count + some.shape[1]
    return interval


def search(magnitudes: Magnitudes, grid: Tensor) -> Tensor:
    """An interval for each row that is nearly the best, [rows, 1]: several are tried, and the best one and its levels
    fitted to each other as long as that helps."""
    cost = len(magnitudes.size) * len(grid)
    around = magnitudes.size[:, -1:].double() / grid[-1]
    best = gain = torch.zeros_like(around)
    for low, high, tries in STAGES:
        ratios = torch.logspace(math.log10(low), math.log10(high), tries, dtype=torch.float64)
        # The middle, too: of numbers that are on levels already it is the interval.
        ratios = torch.cat([ratios, torch.ones(1, dtype=torch.float64)]).to(grid.device)
        found = [
            _gain(*magnitudes.moments(around * some, grid))
            for some in ratios.tensor_split(-(-len(ratios) * cost // WORK))
        ]
        fitted, gains = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        best, gain = _better(best, gain, fitted, gains)
        around = around * ratios[gains.argmax(1, keepdim=True)]
    for _ in range(ROUNDS):
        before = gain
        best, gain = _better(best, gain, *_gain(*magnitudes.moments(best, grid)))
        if bool((gain <= before).all()):
            break
    return best


def common(rows: Tensor, most: float) -> Tensor:
    """The largest interval of which all numbers of a row are multiples, [rows, 1] in float64; 0 where that takes
    multiples beyond `most`, or all are zero."""
    sizes = rows.abs().double().cpu().numpy()
    largest = sizes.max(axis=1, keepdims=True)
    exponent = np.frexp(largest)[1]
    whole = np.ldexp(sizes, BITS - exponent)
    exact = (whole == np.floor(whole)).all(axis=1, keepdims=True)
    interval = np.gcd.reduce(whole.astype(np.int64), axis=1, keepdims=True)
    found = np.ldexp(interval.astype(np.float64), exponent - BITS)
    return torch.from_numpy(np.where(exact & (largest <= most * found), found, 0.0)).to(rows.device)


def powers(rows: Tensor, span: int) -> Tensor:
    """The largest magnitude of each row, [rows, 1] in float64, if all others are 0 or that divided by 2, 4, ..., at
    most 2^span; else 0."""
    sizes = rows.abs().double()
    largest = sizes.amax(1, keepdim=True)
    mantissa, exponent = torch.frexp(sizes)
    top, highest = torch.frexp(largest)
    fits = (mantissa == top) & (exponent >= highest - span) | (sizes == 0)
    return largest * fits.all(1, keepdim=True)


def distinct(ordered: Tensor, zeros_stay: bool) -> Tensor:
    """How many different numbers each sorted row has, [rows]; zero does not count if `zeros_stay`."""
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return (new & (ordered != 0) if zeros_stay else new).sum(1)


def few(ordered: Tensor, most: int, zeros_stay: bool) -> Tensor:
    """Whether each sorted row has at most `most` different numbers, [rows]; zero does not count if `zeros_stay`."""
    found = distinct(ordered[:, :: -(-ordered.shape[1] // PROBE)], zeros_stay) <= most
    if found.any():
        found[found.clone()] = distinct(ordered[found], zeros_stay) <= most
    return found


def below(numbers: Tensor, edges: Tensor) -> Tensor:
    """How many of its row's `edges` [rows, n], which rise, are below each number [rows, columns]."""
    if edges.shape[1] > COMPARED:
        return torch.searchsorted(edges.contiguous(), numbers.contiguous())
    found = torch.zeros(numbers.shape, dtype=torch.uint8, device=numbers.device)
    for edge in edges.unbind(1):
        found += numbers > edge[:, None]
    return found.long()


def strips(rows: Tensor) -> Iterator[tuple[slice, slice]]:
    """Parts of a matrix, of some rows or of a part of one."""
    height, width = rows.shape
    tall = max(1, STRIP // width)
    for top in range(0, height, tall):
        for left in range(0, width, STRIP):
            yield slice(top, top + tall), slice(left, left + STRIP)


def rounded(numbers: Tensor, digits: int) -> Tensor:
    """To so many binary digits."""
    mantissa, exponent = torch.frexp(numbers)
    return torch.ldexp((mantissa * 2.0**digits).round(), exponent - digits)


def sampled(rows: Tensor, most: int) -> Tensor:
    """Rows in order; of long ones an even sample."""
    step = -(-rows.shape[1] // most)
    # A step that divides the row would meet the same places of all kernels, or the same input channel.
    while step > 1 and math.gcd(step, rows.shape[1]) > 1:
        step += 1
    return ascending(rows[:, ::step])


def centres(rows: Tensor, count: int, zeros_stay: bool) -> Tensor:
    """k-means in one dimension: `count` centres of each row, rising, [rows, count] in float64; zeros are left out if
    `zeros_stay`. Two starts, even steps from the least to the largest number and even shares of all numbers; the better
    one counts."""
    ordered = sampled(rows, MOST).double()
    there = (ordered != 0) if zeros_stay else torch.ones_like(ordered, dtype=torch.bool)
    sums, counts = _prefix(ordered), _prefix(there)
    share = (torch.arange(count, dtype=torch.float64, device=rows.device) + 0.5) / count
    rank = torch.searchsorted(counts, share * counts[:, -1:], right=True) - 1
    by_number = ordered.gather(1, rank.clamp(0, ordered.shape[1] - 1))
    by_step = torch.lerp(ordered[:, :1], ordered[:, -1:], share)
    found, gains = zip(*(_lloyd(start, ordered, sums, counts) for start in (by_step, by_number)), strict=True)
    return torch.where(gains[0] >= gains[1], found[0], found[1])


def _lloyd(centre: Tensor, ordered: Tensor, sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Centres [rows, count] moved to the means of what lies nearest to them, and by how much of the sum of squares they
    fall short of it, [rows, 1]."""
    gain = torch.full_like(sums[:, :1], -1.0)
    for _ in range(MEANS):
        edges = torch.searchsorted(ordered, (centre[:, 1:] + centre[:, :-1]) / 2)
        ends = torch.nn.functional.pad(edges, (1, 1))
        ends[:, -1] = ordered.shape[1]
        total, number = (prefix.gather(1, ends).diff(dim=1) for prefix in (sums, counts))
        centre = torch.where(number > 0, total / number.clamp(min=1), centre)
        before, gain = gain, (total.square() / number.clamp(min=1)).sum(1, keepdim=True)
        if bool((gain <= before).all()):
            break
    return centre.sort(dim=1).values, gain


def _gain(along: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    """The interval that suits given levels best, and by how much it brings ||V - a Q||^2 below ||V||^2."""
    interval = torch.where(square > 0, along / square.clamp(min=1e-300), 0.0)
    return interval, interval * along


def _better(best: Tensor, gain: Tensor, intervals: Tensor, gains: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of each row that gains most: `best` or one of `intervals` [rows, tries]."""
    top, at = gains.max(1, keepdim=True)
    return torch.where(top > gain, intervals.gather(1, at), best), torch.maximum(gain, top)


def _prefix(rows: Tensor) -> Tensor:
    """Sums of the first 0, 1, 2, ... numbers of each row, float64."""
    found = torch.zeros((len(rows), rows.shape[1] + 1), dtype=torch.float64, device=rows.device)
    torch.cumsum(rows, 1, dtype=torch.float64, out=found[:, 1:])
    return found
