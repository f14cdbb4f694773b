"""Where activations lie: planes on grids, plain rows, and buffers outside the engine.

A *grid* is the geometry that planes share when an operator walks them position by position: row pitch, rows from one
image of a batch to the next, and how much zero padding its readers need. Grids of values that meet in one operator are
merged, so that a position means the same pixel in all of them. The padding between two rows serves as the right border
of one and the left border of the next; likewise the rows between two images.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from ..formats.program import Runs, runs

UNIT = 16  # floats; positions are worked on in units of this many


def round_up(value: int, unit: int = UNIT) -> int:
    """The next multiple of `unit`."""
    return -(-value // unit) * unit


@dataclass(eq=False)
class Slabs:
    """The stretches of the arena that hold images cut into slabs of rows, one for each thread.

    What one thread works on then shares no cache line and no page with another one's, and stays in its core's caches
    from layer to layer (docs/decisions/0011-slabs.md).
    """

    count: int
    floats: int = 0
    """From a slab to the next; known once planned."""

    LEAST = 24
    """Pixels of a slab below which threads had better share images and divide the outputs."""

    def rows(self, batch: int, h: int, w: int) -> int:
        """Rows of an image in a slab; 0 if such images are not cut."""
        rows = -(-h // self.count)
        return rows if self.count > 1 and batch == 1 and rows * w >= self.LEAST and rows * (self.count - 1) < h else 0

    def reach(self, rows_in: int, rows_out: int, stride: int, before: int, span: int) -> tuple[int, int]:
        """Rows above and below a slab of `rows_in` rows that windows of `span` rows reach from one of `rows_out`."""
        above = below = 0
        for slab in range(self.count):
            first = slab * rows_out * stride - before
            last = first + (rows_out - 1) * stride + span - 1
            above = max(above, slab * rows_in - first)
            below = max(below, last + 1 - (slab + 1) * rows_in)
        return above, below


@lru_cache
def _pitch(batch: int, rows: int, least: int, slab_rows: int, sizes: frozenset[tuple[int, int]]) -> int:
    """`Grid.pitch`: worked out once for each geometry, since a network asks for it thousands of times."""

    def units(h: int, w: int, pitch: int) -> int:
        """Vectors of positions, were rows so far apart."""
        return -(-((batch - 1) * rows * pitch + (min(h, slab_rows or h) - 1) * pitch + w) // UNIT)

    wider = (round_up(least, unit) for unit in (UNIT, UNIT // 2))
    return next((p for p in wider if all(units(h, w, p) <= units(h, w, least) for h, w in sizes)), least)


class Grid:
    """Geometry shared by planes; union-find, so that merging is cheap and order does not matter."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._parent: Grid | None = None
        self._pitch = self._rows = 1
        self._before = (0, 0)
        self._after = (0, 0)
        self._sizes: frozenset[tuple[int, int]] = frozenset()
        self._slabs: Slabs | None = None
        self._slab_rows = -1  # not known yet; 0: images are whole

    @property
    def root(self) -> "Grid":
        """The grid that stands for all merged ones."""
        grid = self
        while grid._parent is not None:
            grid = grid._parent
        return grid

    def need(self, h: int, w: int, before: tuple[int, int] = (0, 0), after: tuple[int, int] = (0, 0)) -> None:
        """Hold images of h x w and, around each, zeros as far as a reader reaches (rows, columns)."""
        g = self.root
        g._sizes |= {(h, w)}
        g._rows = max(g._rows, h + max(before[0], after[0]))
        g._pitch = max(g._pitch, w + max(before[1], after[1]))
        g._before = (max(g._before[0], before[0]), max(g._before[1], before[1]))
        g._after = (max(g._after[0], after[0]), max(g._after[1], after[1]))

    def cut(self, slabs: Slabs, h: int, w: int) -> None:
        """Cut images of h x w into slabs, unless images that share the grid would be cut elsewhere."""
        g = self.root
        g._slabs = slabs
        rows = slabs.rows(self.batch, h, w)
        g._slab_rows = rows if g._slab_rows in (-1, rows) else 0

    def keep_whole(self) -> None:
        """For steps that know nothing of slabs."""
        self.root._slab_rows = 0

    @property
    def slab_rows(self) -> int:
        """Rows of an image in a slab; 0 if images are whole."""
        return max(0, self.root._slab_rows)

    @property
    def slabs(self) -> list[int]:
        """How images are cut, as a program writes it: slabs, floats from one to the next, rows in each."""
        g = self.root
        return [g._slabs.count, g._slabs.floats, g._slab_rows] if g._slabs and g._slab_rows > 0 else []

    @property
    def halo(self) -> list[int]:
        """Rows above and below that readers reach."""
        return [self.root._before[0], self.root._after[0]]

    def merge(self, other: "Grid") -> None:
        """From now on both are one grid."""
        a, b = self.root, other.root
        if a is b:
            return
        assert a.batch == b.batch
        b._parent = a
        if a._slab_rows != b._slab_rows:
            a._slab_rows = max(a._slab_rows, b._slab_rows) if -1 in (a._slab_rows, b._slab_rows) else 0
        a._slabs = a._slabs or b._slabs
        a._sizes |= b._sizes
        a._rows, a._pitch = max(a._rows, b._rows), max(a._pitch, b._pitch)
        a._before = (max(a._before[0], b._before[0]), max(a._before[1], b._before[1]))
        a._after = (max(a._after[0], b._after[0]), max(a._after[1], b._after[1]))

    @property
    def pitch(self) -> int:
        """Floats from a row to the next; whole vectors where they cost nothing, so that fewer loads are split."""
        g = self.root
        return _pitch(g.batch, g._rows, g._pitch, g.slab_rows, g._sizes)

    @property
    def stride(self) -> int:
        """Floats from an image of the batch to the next."""
        return self.root._rows * self.pitch

    def count(self, h: int, w: int) -> int:
        """Positions from the first pixel to the last of a batch of h x w images, or of a slab's share of one."""
        return (self.batch - 1) * self.stride + (min(h, self.slab_rows or h) - 1) * self.pitch + w

    @property
    def lead(self) -> int:
        """Floats before a plane's position 0, so that it is aligned."""
        g = self.root
        return round_up(g._before[0] * g.pitch + g._before[1])

    def padding(self, h: int, w: int) -> list[list[tuple[int, int]]]:
        """Where readers of h x w images find zeros or a halo, as (begin, length) in a plane of each slab."""
        (above, left), (below, right), rows = self.root._before, self.root._after, self.slab_rows or h
        found = []
        for top in range(0, h, rows):
            height = min(rows, h - top)
            starts = [self.lead + n * self.stride + y * self.pitch for n in range(self.batch) for y in range(height)]
            begins = [self.lead - above * self.pitch - left, *(start + w for start in starts)]
            ends = [*starts, self.lead + self.count(h, w) + below * self.pitch + right]
            found.append([(begin, end - begin) for begin, end in zip(begins, ends, strict=True) if end > begin])
        return found

    @property
    def plane(self) -> int:
        """Floats of one plane: an odd multiple of 16, so that channels do not collide in the cache."""
        g = self.root
        reach = round_up(max(self.count(h, w) for h, w in g._sizes)) + g._after[0] * g.pitch + g._after[1]
        units = round_up(self.lead + reach + UNIT) // UNIT
        return UNIT * (units + 1 - units % 2)


@dataclass(eq=False)
class Planes:
    """Storage of some channels on a grid. `base` is the first channel's position 0 once planned."""

    grid: Grid
    channels: int
    h: int
    w: int
    permanent: bool = False
    private: bool = False
    """Written only in part: the other pixels are zero, too."""
    base: int = -1

    @property
    def floats(self) -> int:
        """Floats of all channels."""
        return self.channels * self.grid.plane

    def settle(self, start: int) -> None:
        """Take the place that begins at `start`."""
        self.base = start + self.grid.lead

    def offset(self, channel: int) -> int:
        """Position 0 of a channel in the arena."""
        return self.base + channel * self.grid.plane

    def stretches(self) -> list[list[tuple[int, int]]]:
        """What of a plane must be zero in each slab, as (begin, length): padding; all if not every pixel is written."""
        padding = self.grid.padding(self.h, self.w)
        return [[(0, self.grid.plane)] for _ in padding] if self.private else padding


@dataclass(eq=False)
class Rows:
    """Storage of `batch` rows of features, each followed by room up to a multiple of 64."""

    batch: int
    features: int
    base: int = -1
    permanent: bool = False

    @property
    def stride(self) -> int:
        """Floats from a row to the next."""
        return round_up(self.features, 64)

    @property
    def floats(self) -> int:
        """Floats of all rows."""
        return self.batch * self.stride

    def settle(self, start: int) -> None:
        """Take the place that begins at `start`."""
        self.base = start


Storage = Planes | Rows


@dataclass(frozen=True)
class PlaneView:
    """A value as channels anywhere in the arena: concatenating or shuffling channels moves nothing.

    Tokens [N, S, C] lie as C planes of 1 x S, features [N, C] as C planes of 1 x 1.
    """

    grid: Grid
    h: int
    w: int
    channels: tuple[tuple[Planes, int], ...]

    def offsets(self) -> list[int]:
        """Position 0 of every channel."""
        plane = self.grid.plane  # computed once: networks have thousands of channels
        return [planes.base + c * plane for planes, c in self.channels]

    def runs(self) -> Runs:
        """Position 0 of every channel, as a program writes it."""
        return runs(self.offsets())

    @property
    def positions(self) -> list[int]:
        """Batch, stride, pitch, height and width, as a step that treats every position alike takes them."""
        return [self.grid.batch, self.grid.stride, self.grid.pitch, self.h, self.w]

    def chosen(self, index: Iterable[int]) -> "PlaneView":
        """Some channels, in any order: nothing moves."""
        return replace(self, channels=tuple(self.channels[i] for i in index))

    @property
    def image(self) -> "Image":
        """As an image stack that copies and pooling understand."""
        return Image(-1, self.grid.pitch, self.grid.stride, self.offsets(), self.grid.slabs)

    def storages(self) -> tuple[Storage, ...]:
        """What it lies in, each once."""
        return tuple(dict.fromkeys(planes for planes, _ in self.channels))


def joined(views: Sequence[PlaneView]) -> PlaneView:
    """The channels of several values as those of one: their grids become one, and nothing moves."""
    first = views[0]
    for view in views[1:]:
        first.grid.merge(view.grid)
    return PlaneView(first.grid, first.h, first.w, tuple(channel for view in views for channel in view.channels))


QUAD = 4
"""Channels in a word of bytes."""


@dataclass(frozen=True)
class Quads:
    """A value in bytes: words of four channels each, which lie in planes like any others."""

    view: PlaneView
    """Planes of words."""
    lanes: tuple[int, ...]
    """For each channel which byte of a pixel's words it is, counted through all planes; no two are the same. Bytes that
    are no channel may hold anything."""
    scale: float
    signed: bool
    token: PlaneView | None = None
    """A plane of scales, where every position has one of its own."""

    @property
    def in_order(self) -> bool:
        """Whether channels follow each other without gaps, as they do in what most steps write."""
        return self.lanes == tuple(range(len(self.lanes))) and len(self.view.channels) == -(-len(self.lanes) // QUAD)

    def chosen(self, index: Sequence[int]) -> "Quads":
        """Some channels, each once, in any order: nothing moves."""
        lanes = [self.lanes[i] for i in index]
        kept = sorted({lane // QUAD for lane in lanes})
        place = {plane: QUAD * at for at, plane in enumerate(kept)}
        lanes = [place[lane // QUAD] + lane % QUAD for lane in lanes]
        return replace(self, view=self.view.chosen(kept), lanes=tuple(lanes))


def joined_quads(values: Sequence[Quads]) -> Quads:
    """The channels of several values of one scale and sign as those of one: nothing moves."""
    begins = np.cumsum([0, *(QUAD * len(v.view.channels) for v in values)])
    lanes = tuple(int(begin) + lane for begin, v in zip(begins, values, strict=False) for lane in v.lanes)
    return replace(values[0], view=joined([v.view for v in values]), lanes=lanes)


@dataclass(frozen=True)
class RowsView:
    """A value as rows; `shape` is [N, C, H, W] or [N, F], row-major in each row."""

    storage: Rows
    shape: tuple[int, ...]

    @property
    def image(self) -> "Image":
        return dense_image(-1, self.shape, self.storage.base, self.storage.stride)

    def storages(self) -> tuple[Storage, ...]:
        """What it lies in."""
        return (self.storage,)


@dataclass(frozen=True)
class External:
    """A value in a buffer outside the engine: model inputs and outputs, and what PyTorch computes."""

    buffer: int
    shape: tuple[int, ...]

    @property
    def image(self) -> "Image":
        return dense_image(self.buffer, self.shape, 0, int(np.prod(self.shape[1:], dtype=np.int64)))

    def storages(self) -> tuple[Storage, ...]:
        """Nothing in the arena."""
        return ()


def plane_shape(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Batch, channels, height and width of a value as planes: [N, C, H, W], tokens [N, S, C] or features [N, C]."""
    if len(shape) == 4:
        n, c, h, w = shape
        return n, c, h, w
    return shape[0], shape[-1], 1, shape[1] if len(shape) == 3 else 1


View = PlaneView | RowsView | External


@dataclass(frozen=True)
class Image:
    """Plane c of sample n begins at offsets[c] + n * stride, its row y another y * pitch on."""

    buffer: int
    pitch: int
    stride: int
    offsets: list[int] = field(repr=False)
    slabs: list[int] = field(default_factory=list)


def dense_image(buffer: int, shape: tuple[int, ...], base: int, stride: int) -> Image:
    """A row-major [N, C, H, W] array, or [N, ...] as one plane of one row."""
    if len(shape) != 4:
        return Image(buffer, 1, stride, [base])
    _, c, h, w = shape
    return Image(buffer, w, stride, [base + i * h * w for i in range(c)])
