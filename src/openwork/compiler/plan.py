"""Memory plan: one arena; storage whose lifetimes do not overlap shares a place.

Padding must stay zero, and a kernel writes zeros only where its own image has padding. So places are shared only inside
a *space* (planes of the same grid and image size; plain rows), and the arena is zeroed once.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from .layout import UNIT, Planes, Slabs, Storage, round_up

PAGE = 1024  # floats


class Touches(Protocol):
    """A step, as far as the plan is concerned."""

    def reads(self) -> Iterable[Storage]: ...
    def writes(self) -> Iterable[Storage]: ...


def plan(steps: Sequence[Touches], slabs: Slabs | None = None) -> int:
    """Give every storage its place; returns the floats of the arena, at whose begin the slabs lie."""
    lives = lifetimes(steps)
    cut: dict[Any, list[Storage]] = defaultdict(list)
    whole: dict[Any, list[Storage]] = defaultdict(list)
    for storage in lives:
        (cut if isinstance(storage, Planes) and storage.grid.slabs else whole)[storage.space].append(storage)
    arena = 0
    for members in cut.values():
        arena = _place(members, lives, arena)
    if cut:
        assert slabs
        slabs.floats = round_up(arena + UNIT, PAGE) + UNIT
        arena = slabs.count * slabs.floats
    for members in whole.values():
        arena = _place(members, lives, arena)
    return arena + UNIT


def lifetimes(steps: Sequence[Touches]) -> dict[Storage, tuple[int, int]]:
    """First and last step that touches each storage, in order of first use."""
    lives: dict[Storage, tuple[int, int]] = {}
    for i, step in enumerate(steps):
        for storage in [*step.reads(), *step.writes()]:
            first = lives.get(storage, (i, i))[0]
            lives[storage] = (0, len(steps)) if storage.permanent else (first, i)
    return lives


def _place(members: list[Storage], lives: dict[Storage, tuple[int, int]], begin: int) -> int:
    """First fit by decreasing size; returns where the space ends."""
    placed: list[tuple[int, int, Storage]] = []
    end = begin
    for storage in sorted(members, key=lambda s: -s.floats):
        size = round_up(storage.floats)
        first, last = lives[storage]
        busy = sorted((a, b) for a, b, other in placed if lives[other][0] <= last and first <= lives[other][1])
        start = begin
        for a, b in busy:
            if start + size <= a:
                break
            start = max(start, b)
        placed.append((start, start + size, storage))
        storage.settle(start)
        end = max(end, start + size)
    return end
