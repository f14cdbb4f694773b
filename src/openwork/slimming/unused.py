"""Unused paths: channels that no output of a network depends on, or whose value is known, emptied to a fixed point.

A channel (with all that it is tied to) can go when every layer that reads it either has zero weights there, or can do
without: what the channel holds is one and the same value everywhere, so that a bias can stand for it. At a border of
zeros it cannot. There one such channel can stand for all others, since they differ in a factor only. Emptying a channel
zeroes the filters that make it; with them, weights of other channels may have been the last that read something.

Source: Ma et al. 2019, arXiv:1905.00136 (unused path removal). Constants at borders are ours.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import fx

from ._channels import Flow
from ._layer import Flags, Layer, Values

UNUSED = "nothing reads it"
CONSTANT = "its value is known; biases hold it"
MERGED = "its value is known; another known channel stands for it at borders"

_STEEPEST = 1e3
"""How many times larger the value of a channel may be than that of the one that stands for it."""


@dataclass
class Settled:
    """What can go at the fixed point, and what keeps the rest."""

    gone: dict[int, str] = field(default_factory=dict)
    """Classes of channels that are empty now, and why."""
    readers: dict[int, list[str]] = field(default_factory=dict)
    """For those that stay: layers that read something of them that is not known."""
    borders: dict[int, list[str]] = field(default_factory=dict)
    """For those that stay: layers that read a known value, which no bias can stand for."""


def settle(flow: Flow, fold: bool = True) -> Settled:
    """Empty what can go, until nothing more can; shapes stay.

    Arguments:
        fold: let biases and other channels stand for known values; else only zeros count as known, and nothing but
            weights is changed.
    """
    found, mixing = Settled(), [layer for layer in flow.layers if layer.groups == 1]
    merged: set[int] = set()
    free = np.zeros(len(flow.classes), dtype=bool)
    for layer in flow.layers:
        free[flow.classes[layer.writes]] = True
    free[list(flow.pins)] = False
    while True:
        known = flow.constants()
        reads = [_Read(flow, layer, known, fold) for layer in mixing]
        blocked, folded = np.zeros_like(free), np.zeros_like(free)
        for read in reads:
            blocked[read.classes[read.needs & ~read.takes]] = True
            folded[read.classes[read.needs & read.takes & (read.values != 0)]] = True
        now = free & ~blocked
        if now.any():
            _empty(flow, reads, now)
            for chosen in np.flatnonzero(now).tolist():
                found.gone[chosen] = MERGED if chosen in merged else CONSTANT if folded[chosen] else UNUSED
            free &= ~now
        elif fold and (more := _merge(reads, free, set(found.gone))):
            merged |= more
        else:
            break
    for read in reads:
        for why, places in ((found.readers, np.isnan(read.values)), (found.borders, ~np.isnan(read.values))):
            for chosen in np.unique(read.classes[read.needs & ~read.takes & places]).tolist():
                why.setdefault(chosen, []).append(read.layer.name)
    return found


class _Read:
    """A layer that reads channels, with what they hold in this round."""

    def __init__(self, flow: Flow, layer: Layer, known: dict[fx.Node, Values], fold: bool) -> None:
        self.layer = layer
        self.classes = flow.classes[layer.reads]
        self.values = flow.read_by(layer, known)
        self.needs: Flags = layer.needs()
        self.takes: Flags = layer.takes(self.values) if fold else self.values == 0


def _empty(flow: Flow, reads: list[_Read], now: Flags) -> None:
    for read in reads:
        places = np.flatnonzero(now[read.classes] & read.needs)
        if len(places):
            read.layer.fold(places, read.values[places])
    for layer in flow.layers:
        places = np.flatnonzero(now[flow.classes[layer.writes]] & layer.used.any(axis=1))
        if len(places):
            layer.zero_outputs(places)


def _merge(reads: list[_Read], free: Flags, gone: set[int]) -> set[int]:
    """Let other channels stand for those whose value is known wherever it is read; returns the classes spared."""
    unknown, places = np.zeros_like(free), dict[int, list[tuple[_Read, int]]]()
    for read in reads:
        unknown[read.classes[read.needs & np.isnan(read.values)]] = True
        for place in np.flatnonzero(read.needs & ~np.isnan(read.values) & ~read.takes).tolist():
            places.setdefault(int(read.classes[place]), []).append((read, place))
    spared, standing = set[int](), set[int]()

    def size(chosen: int) -> tuple[float, int]:
        return max(abs(read.values[place]) for read, place in places[chosen]), chosen

    # The smallest first, so that large values stand for small ones.
    for chosen in sorted((c for c in places if free[c] and not unknown[c]), key=size):
        if chosen in standing:  # it is read in more places than were found above; the next round knows them
            continue
        homes = []
        for read, place in places[chosen]:
            away = np.isin(read.classes, [chosen, *gone, *spared])
            sizes = np.where(away | np.isnan(read.values), 0.0, np.abs(read.values))
            into = int(sizes.argmax())
            if abs(read.values[place]) > _STEEPEST * sizes[into]:
                break
            homes.append((read, place, into))
        else:
            for read, place, into in homes:
                read.layer.merge(place, into, read.values[place] / read.values[into])
                standing.add(int(read.classes[into]))
            spared.add(chosen)
    return spared
