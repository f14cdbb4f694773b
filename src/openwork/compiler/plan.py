"""Memory plan: one arena; storage whose lifetimes do not overlap shares a place.

Kernels store zeros only between the rows of their own images, if at all. Who takes over a place may therefore find
another image's pixels where its own padding should be. The plan knows, step by step, whose padding is zero in which
part of the arena, and has planes cleared whose padding will be read and is not known to be zero. Nothing is assumed
of what the run before has left behind: it may have ended anywhere.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Protocol

from .layout import UNIT, Planes, Slabs, Storage, round_up

PAGE = 1024  # floats

SPACIOUS = 1.25
"""How many times the largest live storage the arena may take, so that less has to be cleared."""

Life = tuple[int, int]
"""First and last step."""


class Touches(Protocol):
    """A step, as far as the plan is concerned."""

    def reads(self) -> Iterable[Storage]: ...
    def writes(self) -> Iterable[Storage]: ...

    def pads(self) -> Iterable[Planes]:
        """Of what it reads, that around whose images it needs zeros."""
        ...


@dataclass(frozen=True)
class Plan:
    """Where everything lies is noted in the storage itself."""

    arena: int
    """Floats."""
    clears: Mapping[int, Sequence[tuple[Planes, Sequence[int]]]]
    """Before which step what is to be cleared: storage, and which of its channels."""


def plan(steps: Sequence[Touches], slabs: Slabs | None = None) -> Plan:
    """Give every storage its place; slabs lie at the arena's begin."""
    lives = lifetimes(steps)
    padded = {s for s in lives if isinstance(s, Planes) and s.private}.union(*(step.pads() for step in steps))
    cut: dict[Storage, Life] = {s: life for s, life in lives.items() if isinstance(s, Planes) and s.grid.slabs}
    begins, arena = _begins(cut, padded, 0)
    if cut:
        assert slabs
        slabs.floats = round_up(arena + UNIT, PAGE) + UNIT
        arena = slabs.count * slabs.floats
    whole, arena = _begins({s: life for s, life in lives.items() if s not in cut}, padded, arena)
    begins |= whole
    for storage, begin in begins.items():
        storage.settle(begin)
    return Plan(arena + UNIT, _clears(lives, begins, padded))


def _begins(lives: Mapping[Storage, Life], padded: Container[Storage], start: int) -> tuple[dict[Storage, int], int]:
    """Where each storage begins, from `start` on, and where the last one ends."""
    begins = {s: start + block.begin + at for block in _blocks(lives, padded) for s, at in block.members.items()}
    return begins, max((begin + round_up(s.floats) for s, begin in begins.items()), default=start)


def lifetimes(steps: Sequence[Touches]) -> dict[Storage, Life]:
    """First and last step that touches each storage, in order of first use."""
    lives: dict[Storage, Life] = {}
    for i, step in enumerate(steps):
        for storage in [*step.reads(), *step.writes()]:
            first = lives.get(storage, (i, i))[0]
            lives[storage] = (0, len(steps)) if storage.permanent else (first, i)
    return lives


def largest_live(lives: Mapping[Storage, Life]) -> int:
    """Floats of all storage that is alive at one step, where they are most."""
    sizes = [(round_up(s.floats), life) for s, life in lives.items()]
    begins = {first for first, _ in lives.values()}
    return max((sum(size for size, (a, b) in sizes if a <= at <= b) for at in begins), default=0)


# ---- places ----


@dataclass(eq=False)
class _Block:
    """Storage that is placed as one."""

    members: Mapping[Storage, int]
    """And where in the block each begins."""
    life: Life
    size: int
    begin: int = 0

    @property
    def end(self) -> int:
        return self.begin + self.size


def _blocks(lives: Mapping[Storage, Life], padded: Container[Storage]) -> list[_Block]:
    """Everything at its place.

    Images whose padding is read share one block with all of their kind: for good, or else from the first step of the
    first to the last step of the last, as far as that leaves the arena small. Small images come first: they have most
    padding.
    """
    blocks = {s: _Block({s: 0}, life, round_up(s.floats)) for s, life in lives.items()}
    alone = [block for s, block in blocks.items() if s not in padded]
    kinds: dict[Any, list[_Block]] = defaultdict(list)
    planes: dict[Any, int] = {}
    for storage, block in blocks.items():
        if isinstance(storage, Planes) and storage in padded:
            kinds[_kind(storage)].append(block)
            planes[_kind(storage)] = storage.grid.plane
    placed = _placed([*alone, *chain(*kinds.values())])
    limit = SPACIOUS * largest_live(lives)
    for kind, found in sorted(kinds.items(), key=lambda item: planes[item[0]]):
        together = _placed(found)
        members = {s: block.begin for block in together for s in block.members}
        span = min(lives[s][0] for s in members), max(lives[s][1] for s in members)
        for life in ((0, max(b for _, b in lives.values())), span):
            tried = {**kinds, kind: [_Block(members, life, max(block.end for block in together))]}
            attempt = _placed([*alone, *chain(*tried.values())])
            if max(block.end for block in attempt) <= limit:
                kinds, placed = tried, attempt
                break
    return placed


def _placed(blocks: Iterable[_Block]) -> list[_Block]:
    """First fit by decreasing size."""
    placed: list[_Block] = []
    for block in sorted(blocks, key=lambda b: (-b.size, b.life)):
        busy = sorted((b.begin, b.end) for b in placed if b.life[0] <= block.life[1] and block.life[0] <= b.life[1])
        start = 0
        for begin, end in busy:
            if start + block.size <= begin:
                break
            start = max(start, end)
        placed.append(replace(block, begin=start))
    return placed


# ---- what must be cleared ----


def _clears(
    lives: Mapping[Storage, Life], begins: Mapping[Storage, int], padded: Container[Storage]
) -> dict[int, list[tuple[Planes, list[int]]]]:
    """The arena is cut into cells wherever a storage begins or ends; of each is known whose padding is zero there."""
    ends = {s: begin + s.floats for s, begin in begins.items()}
    edges = sorted({*begins.values(), *ends.values()})
    cells = {s: range(bisect_left(edges, b), bisect_left(edges, ends[s])) for s, b in begins.items()}
    users: dict[int, set[Any]] = defaultdict(set)
    rasters = {s: _raster(s, begin) for s, begin in begins.items()}
    for storage, mine in cells.items():
        for cell in mine:
            users[cell].add(rasters[storage])
    clean = {cell: next(iter(found)) if len(found) == 1 else None for cell, found in users.items()}
    clears: dict[int, list[tuple[Planes, list[int]]]] = defaultdict(list)
    for storage, (at, _) in sorted(lives.items(), key=lambda item: item[1][0]):
        raster, begin = rasters[storage], begins[storage]
        dirty = [cell for cell in cells[storage] if clean[cell] != raster]
        if dirty and isinstance(storage, Planes) and storage in padded:
            plane = storage.grid.plane
            spans = [(edges[cell] - begin, edges[cell + 1] - begin) for cell in dirty]
            clears[at].append((storage, sorted({c for a, b in spans for c in range(a // plane, -(-b // plane))})))
        clean |= dict.fromkeys(dirty, raster if storage in padded else None)
    return clears


def _kind(storage: Planes) -> Any:
    """Storage of one kind has its padding in the same positions of a plane, and writes no pixels there."""
    return id(storage) if storage.private else (id(storage.grid.root), storage.h, storage.w)


def _raster(storage: Storage, begin: int) -> Any:
    """A kind, and where in the arena its planes begin."""
    return (_kind(storage), begin % storage.grid.plane) if isinstance(storage, Planes) else id(storage)
