"""Steps before the plan has placed them: what they read, write and weigh, and how they are written down."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from ..engine import _native
from ..formats.program import Array, ProgramSpec, Step, runs
from . import balanced, circulant
from .graph import Node
from .layout import Image, Planes, PlaneView, RowsView, Storage, View

if TYPE_CHECKING:
    from .reorder import Order

Pair = tuple[int, int]
MAX_ROWS = 8  # output rows in the largest register block
TILE: int = _native.TILE  # rows, and taps, of the tiles that blocks of bytes may have their weights in


@dataclass(eq=False)
class Draft:
    """A step before the plan: what it touches, and how to write it down once everything has a place."""

    op: str
    node: Node
    sources: list[View]
    targets: list[View]
    fields: Callable[[], dict[str, Any]]
    arrays: dict[str, Array] = field(default_factory=dict)
    padded: Sequence[PlaneView] = ()
    """Sources around whose images it reads zeros."""
    weights: "Weights | None" = None
    """What the tuner packs as it likes."""
    fixed: "Weights | None" = None
    """Weights of a step that knows one way only."""
    slabs: bool = False
    """Whether the step knows of images that are cut into slabs."""
    alike: bool = False
    """Whether it reads images that are cut only into such."""
    halo: bool = False
    """Whether it does nothing but fill the halos of slabs."""

    def reads(self) -> Iterable[Storage]:
        """Storage that must still hold its value when this step runs, in an order that is always the same."""
        return dict.fromkeys(chain.from_iterable(view.storages() for view in self.sources))

    def writes(self) -> Iterable[Storage]:
        """Storage that this step fills, likewise."""
        return dict.fromkeys(chain.from_iterable(view.storages() for view in self.targets))

    def pads(self) -> set[Planes]:
        """Storage whose padding must be zero when this step runs."""
        return {planes for view in self.padded for planes, _ in view.channels}

    def emit(self) -> Step:
        """The step in plain numbers."""
        return Step(self.op, self.node.source or self.node.name, self.fields(), self.arrays)


@dataclass(frozen=True)
class Level:
    """A sparser network inside a layer's weights (nested sparsity)."""

    keep: Array
    """Weights of the matrix that the level has, bool; all of them are also in the level before."""
    bias: Array
    scale: Array
    """What each row's sum is multiplied by, [out]: batch norm learns other averages at every level."""


@dataclass(frozen=True)
class Weights:
    """What the packer and the tuner need to know of a taps or rows step."""

    matrix: Array
    """[out, in/groups * kernel]; of integer layers words of int32, each four channels' bytes at a kernel position."""
    bias: Array
    groups: int
    pixels: int
    """Useful outputs per row: batch x height x width, or batch."""
    own: int = 0
    """The layer's weights, where the matrix has zeros in other places too."""
    levels: tuple[Level, ...] = ()
    """Nested networks with ever fewer weights, the first of them level 2."""
    orders: "dict[int, Order | None]" = field(default_factory=dict, init=False, repr=False, compare=False)
    """What `reorder.order` has found for each height of blocks."""

    @property
    def count(self) -> int:
        """How many weights the layer has."""
        return self.own or int(self.matrix.size)

    @property
    def nonzero(self) -> int:
        """How many of them are not zero."""
        return int(np.count_nonzero(self.matrix.view(np.int8) if self.whole else self.matrix))

    @property
    def whole(self) -> bool:
        """Whether the weights are bytes."""
        return self.matrix.dtype.kind == "i"

    @cached_property
    def circulant(self) -> int:
        """Side of the matrix's circulant blocks, 0 if it has none."""
        return circulant.block_of(self.matrix)

    @cached_property
    def balanced(self) -> dict[int, balanced.Fit]:
        """How the matrix can be packed so that rows take one input each of a window, by the window's length."""
        return balanced.fits(self.matrix)


@dataclass(frozen=True)
class Integers:
    """What an integer layer's step has besides what a layer of floats has."""

    fields: dict[str, Any]
    arrays: dict[str, Array]
    token: PlaneView | None = None
    """The scales of what it reads, where every position has one of its own."""


@dataclass(frozen=True)
class Lowered:
    """A program whose weights are not packed yet, beside the drafts that say how."""

    program: ProgramSpec
    drafts: tuple[Draft, ...]


def clear_drafts(node: Node, clears: Iterable[tuple[Planes, Sequence[int]]]) -> list[Draft]:
    """Steps that zero the padding of some channels, one for each pattern of zeros."""
    patterns: dict[Any, list[tuple[Planes, int, int]]] = defaultdict(list)
    for planes, channels in clears:
        for slab, stretches in enumerate(planes.stretches()):
            patterns[tuple(stretches)] += [(planes, channel, slab) for channel in channels]
    return [_clear_draft(node, stretches, found) for stretches, found in patterns.items()]


def _clear_draft(node: Node, stretches: Sequence[Pair], found: Sequence[tuple[Planes, int, int]]) -> Draft:
    """A step that zeroes stretches of some channels in some slabs."""

    def fields() -> dict[str, Any]:
        return {
            "planes": runs([p.offset(c) - p.grid.lead + slab * (p.grid.slabs or [1, 0])[1] for p, c, slab in found]),
            "first": runs([first for first, _ in stretches]),
            "length": runs([length for _, length in stretches]),
        }

    planes = found[0][0]
    targets = PlaneView(planes.grid, planes.h, planes.w, tuple((p, c) for p, c, slab in found))
    return Draft("clear", node, [], [targets], fields, slabs=True)


def epilogue_fields(node: Node) -> dict[str, Any]:
    """The fused clamp or activation as JSON: no bound is null."""
    bounds = {"lo": None if node.lo == -math.inf else node.lo, "hi": None if node.hi == math.inf else node.hi}
    return {**bounds, "act": list(node.act)} if node.act else bounds


def image_fields(image: Image, offsets: Iterable[int]) -> dict[str, Any]:
    place = {"buffer": image.buffer, "pitch": image.pitch, "stride": image.stride, "planes": runs(list(offsets))}
    return place | slab_fields(image.slabs)


def position_fields(view: PlaneView) -> dict[str, Any]:
    """The grid and slabs of a step that treats every position alike."""
    return {"grid": view.positions, **slab_fields(view.grid.slabs)}


def slab_fields(slabs: list[int]) -> dict[str, Any]:
    """How images are cut, where they are."""
    return {"slabs": slabs} if slabs else {}


def size_of(view: View) -> Pair:
    """Rows and columns of one plane."""
    if isinstance(view, PlaneView):
        return view.h, view.w
    return (view.shape[2], view.shape[3]) if len(view.shape) == 4 else (1, math.prod(view.shape[1:]))


def batch_of(view: View) -> int:
    return (
        view.grid.batch
        if isinstance(view, PlaneView)
        else view.storage.batch
        if isinstance(view, RowsView)
        else view.shape[0]
    )
