"""What a layer may be run by: kernels, register tiles, cuts of the work for the threads; and a rough cost of each."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..engine import _native
from ..engine.retune import tile_widths
from ..formats.program import Step
from . import circulant, recurrent, winograd
from .drafts import MAX_ROWS, TILE, Draft, Weights
from .pack import tile_taps, union_taps
from .reorder import order

LANES_OVER_OUTPUTS = ("rows", "recurrent", "quad_rows")
"""Steps of few samples: their blocks are panels of `WIDTHS` outputs, or of fewer, `NARROW`."""

WIDTHS = (16, 32, 64)

SHORT_CUTS = ("winograd", "circulant")
"""Kernels that get the same sums from fewer products than the definition has."""

NARROW = (1, 2, 4, 8)
"""Outputs in the panels of fully connected layers whose zeros are too scattered for wider ones."""

PANELS = (32, 16)
"""Outputs in a panel of the dense kernel."""

FIRST_CACHE = 32 << 10
"""Bytes of x that a tile may read again and again without going to the second cache."""

TRANSFORMED = 1 << 18
"""Floats of transformed tiles that a block of Winograd's convolution holds, about: half of a second cache of 2 MiB."""

PROMISING = 2.0
"""Candidates whose estimated work is within this factor of the least are timed."""

Packing = tuple[str, int, bool, bool, int]


@dataclass(frozen=True)
class Choice:
    """How one layer is packed and run."""

    op: str
    """The native step: taps (lanes over positions), dense, winograd (over outputs), rows, recurrent, balanced,
    circulant (few samples)."""
    rows: int
    """Output rows in a block or a panel; inputs in a window (balanced)."""
    tile: tuple[int, ...]
    """Vectors of positions (taps), rows and columns of pixels (dense) or samples in a register block; outputs across a
    tile and tiles in a block (winograd)."""
    dense: bool = False
    """Whether zeros are computed like any other weight."""
    row_chunks: int = 1
    """Pieces that the outputs are cut into for the threads."""
    tile_chunks: int = 1
    """Pieces that the positions are cut into."""
    pieces: int = 1
    """Pieces that the columns are cut into, so that a tile of each lies in the first cache (taps)."""
    reordered: bool = False
    """Whether rows that share taps are put side by side (taps)."""

    @property
    def tiled(self) -> bool:
        """Whether weights lie in tiles, as CPUs that multiply matrices take them (quad_taps)."""
        return self.op == "quad_taps" and self.rows == TILE

    @property
    def packing(self) -> Packing:
        """Choices with the same packing share their arrays. A recurrent layer is packed part by part."""
        more = {"recurrent": self.row_chunks, "winograd": self.tile[0]}
        return self.op, self.rows, self.dense, self.reordered, more.get(self.op, 0)


def first(draft: Draft, base: Step, threads: int, isa: str) -> Choice:
    """The cost model's guess; Winograd's convolution is never taken without a clock."""
    found = [c for c in kernels(draft, base, threads, isa) if c.op != "winograd"]
    return min(found, key=lambda c: _work(draft, base, c))


def kernels(draft: Draft, base: Step, threads: int, isa: str) -> list[Choice]:
    """Every packing that is worth a try, with its best-looking tile: the best dense ones, promising sparse, circulant
    and Winograd ones."""
    assert draft.weights is not None
    dense = not draft.weights.levels and np.count_nonzero(draft.weights.matrix) == draft.weights.matrix.size
    found = [next(tiles(draft, base, c, threads, isa)) for c in _packings(draft, base, isa)]
    work = {c: _work(draft, base, c) for c in found}
    # one dense candidate at least: what sparsity brings is told, and must not be less than nothing
    others = [c for c in found if c.op not in SHORT_CUTS and c.op != "balanced"]
    plain, sparse = ([c for c in others if c.dense is kind] for kind in (True, False))
    rest = [c for c in found if c not in others]
    rivals = [([] if dense else sparse, sparse), (plain, plain), (rest, found)]
    return [c for kind, others in rivals for c in kind if work[c] <= PROMISING * min(work[o] for o in others)]


def _packings(draft: Draft, base: Step, isa: str) -> Iterator[Choice]:
    w = draft.weights
    assert w is not None
    if w.levels:
        yield from (c for c in _packings(replace(draft, weights=replace(w, levels=())), base, isa) if _nests(w, c))
        return
    if draft.op == "quad_rows":
        yield from (Choice("quad_rows", WIDTHS[0], (1,), dense) for dense in (True, False))
        yield from (Choice("quad_rows", width, (1,), False) for width in NARROW)
        return
    if draft.op == "quad_taps":
        rows = allowed_rows(w)
        if _native.multiplies_matrices(isa) and (w.groups == 1 or len(w.matrix) // w.groups % TILE == 0):
            rows.append(TILE)
        yield from (Choice("quad_taps", r, (1,), dense) for r in rows for dense in (True, False))
        return
    if draft.op in LANES_OVER_OUTPUTS:
        yield from (Choice(draft.op, width, (1,), dense) for width in WIDTHS for dense in (True, False))
        yield from (Choice(draft.op, width, (1,), False) for width in (NARROW if draft.op == "rows" else ()))
        yield from (Choice("balanced", window, (1,), False) for window in (w.balanced if draft.op == "rows" else ()))
        if draft.op == "rows" and w.circulant:
            yield Choice("circulant", w.circulant, (1,), True)
        return
    if draft.op == "taps":
        rows = allowed_rows(w)
        yield from (Choice("taps", r, (1,), False) for r in rows)
        yield from (Choice("taps", r, (1,), False, reordered=True) for r in rows if order(w, r))
        yield from (Choice("taps", r, (1,), True) for r in rows[-2:])
    if draft.op == "taps" and winograd.applies(base.fields, w.groups):
        yield from (Choice("winograd", p, (m, 1), True) for m in winograd.POINTS for p in PANELS)
    if w.groups == 1 or len(w.matrix) // w.groups % PANELS[-1] == 0:
        panels = [p for p in PANELS if w.groups == 1 or len(w.matrix) // w.groups % p == 0]
        yield from (Choice("dense", p, (1, 1), True) for p in panels if _native.dense_fits(isa, p, 1, 2))


def _nests(w: Weights, choice: Choice) -> bool:
    """Whether a kernel holds several levels: lists of taps do, and taps without lists if no level has fewer weights."""
    all_alike = all(np.array_equal(level.keep, w.matrix != 0) for level in w.levels)
    return choice.op in ("taps", "rows") and (all_alike or not choice.dense)


def allowed_rows(w: Weights) -> list[int]:
    """Rows in a block: any power of two without groups, else one that divides a group's rows."""
    per_group = len(w.matrix) // w.groups
    return [r for r in (1, 2, 4, MAX_ROWS) if (per_group % r == 0 if w.groups > 1 else r < 2 * per_group)]


def tiles(draft: Draft, base: Step, choice: Choice, threads: int, isa: str) -> Iterator[Choice]:
    """The same packing with other register tiles, likely best first, each with a cut that suits it."""
    if draft.op in LANES_OVER_OUTPUTS:
        samples = range(min(base.fields["batch"], _native.MAX_SAMPLES), 0, -1)
        chunks = 2 * threads if choice.op in ("rows", "quad_rows") else threads
        yield from (replace(choice, tile=(s,), row_chunks=chunks) for s in samples)
        return
    if choice.op == "winograd":
        yield from _blocks(draft, base, choice, threads)
        return
    if choice.op == "dense":
        h, w = _grid(base)[3:]
        shapes = _dense_tiles(isa, choice.rows, h, w)
        found = [replace(choice, tile=shape) for shape in shapes[:3]]
    else:
        found = [replace(choice, tile=(width,)) for width in tile_widths(isa, choice.op, choice.rows)]
        if choice.pieces > 1:
            found = [in_pieces(base, c) or c for c in found]
    yield from (_cut(base, c, threads, isa) for c in found)


def in_pieces(base: Step, choice: Choice) -> Choice | None:
    """The same kernel with columns in pieces whose part of a tile lies in the first cache; None if all of it does."""
    if choice.op != "taps" or base.fields.get("block_group") or base.fields.get("levels", 1) > 1:
        return None
    shifts = [by for _, by in base.fields["shifts"]]
    channels = sum(count for *_, count in base.fields["planes"][0])
    lines = len(base.fields["planes"]) * (choice.tile[0] + 1) + (max(shifts) - min(shifts)) // 16
    pieces = math.ceil(64 * lines * channels / FIRST_CACHE)
    return replace(choice, pieces=min(pieces, 64)) if pieces > 1 else None


def _blocks(draft: Draft, base: Step, choice: Choice, threads: int) -> Iterator[Choice]:
    """Blocks of tiles. Threads own tiles where there are many, else outputs, and then share what is transformed."""
    assert draft.weights is not None
    m, tiles = choice.tile[0], _tiles(base, choice.tile[0])
    room = TRANSFORMED // ((m + 2) ** 2 * draft.weights.matrix.shape[1] // winograd.KERNEL**2)
    blocks = dict.fromkeys(min(max(14, int(room * f) // 14 * 14), tiles) for f in (1.0, 0.5, 2.0))
    ways = [(1, threads), (threads, 1)] if tiles > 4 * 14 * threads else [(threads, 1), (1, threads)]
    for rows, parts in ways:
        yield from (replace(choice, tile=(m, b), row_chunks=rows, tile_chunks=parts) for b in blocks)


def _tiles(base: Step, m: int) -> int:
    """Tiles of m x m outputs; each slab of an image has its own."""
    batch, _, _, h, w = base.fields["grid"]
    count, _, rows = base.fields.get("slabs", (1, 0, h))
    down = sum(math.ceil(min(rows, h - top) / m) for top in range(0, h, rows)[:count])
    return int(batch * down * math.ceil(w / m))


def multiply_adds(draft: Draft, base: Step, choice: Choice) -> int | None:
    """Multiply-adds that a layer takes if they are others than its non-zero weights times its outputs."""
    if choice.op not in SHORT_CUTS:
        return None
    assert draft.weights is not None
    m, matrix = choice.tile[0], draft.weights.matrix
    if choice.op == "circulant":
        return int(base.fields["batch"]) * circulant.multiply_adds(matrix.shape, choice.rows)
    return (m + 2) ** 2 * _tiles(base, m) * matrix.size // winograd.KERNEL**2


def _dense_tiles(isa: str, width: int, h: int, w: int) -> list[tuple[int, int]]:
    """Tiles of the dense kernel that cut an image of h x w evenly, the least estimated work first."""
    found = {}
    for rows in range(1, min(h, 3) + 1):
        widest = max((c for c in range(1, min(w, 14) + 1) if _native.dense_fits(isa, width, rows, c)), default=0)
        fewest = math.ceil(w / widest) if widest else w + 1
        for parts in range(fewest, w + 1):
            columns = math.ceil(w / parts)
            if parts > fewest and columns < widest - 5:
                break
            found[rows, columns] = _dense_cost(isa, width, rows, columns) * math.ceil(h / rows) * parts
    return sorted(found, key=found.__getitem__)


def _dense_cost(isa: str, width: int, rows: int, columns: int) -> float:
    """Cycles of one tap of a tile, roughly: two multiply-adds and two loads at a time, and what goes with them."""
    vectors, pixels = width / _native.lanes(isa), rows * columns
    return float(max(vectors * pixels, vectors + pixels, 4 * vectors) / 2 + 0.5)


def _cut(base: Step, choice: Choice, threads: int, isa: str) -> Choice:
    """Positions are cut where there are enough of them, else outputs."""
    if "slabs" in base.fields:
        return choice  # one for each thread
    batch, _, pitch, h, _ = base.fields["grid"]
    lines = 1.0 if choice.op == "dense" else pitch / _native.lanes(isa)
    units = batch * h * lines / choice.tile[0]
    if units >= 2 * threads:
        return replace(choice, tile_chunks=threads if units < 8 * threads else 4 * threads)
    return replace(choice, row_chunks=2 * threads)


def cuts(base: Step, choice: Choice, threads: int) -> Iterator[Choice]:
    """The same kernel with the work cut in other ways."""
    ways = [(1, threads), (1, 4 * threads), (threads, 1), (4 * threads, 1), (threads, threads), (1, 1)]
    if "slabs" in base.fields and choice.op != "winograd":  # of a slab
        ways = [(1, 1), (4, 1), (1, 4)]
    elif choice.op in ("rows", "balanced", "circulant", "quad_rows"):
        ways = [(1, 1), (threads, 1), (4 * threads, 1), (16 * threads, 1)]
    elif choice.op == "recurrent":
        ways = [(1, 1), (threads, 1), (4 * threads, 1)]
    for rows, tile in dict.fromkeys(ways):
        yield replace(choice, row_chunks=rows, tile_chunks=tile)


def _work(draft: Draft, base: Step, choice: Choice) -> float:
    """Cycles of a core, roughly, for all positions or samples."""
    w = draft.weights
    assert w is not None
    if choice.op == "recurrent":
        cells = recurrent.Cells.of(base.fields)
        return recurrent.arrange(w.matrix, cells, choice.rows, 1, choice.dense).columns() * choice.rows / 16
    if choice.op == "winograd":
        return _winograd_work(w, base, choice)
    if choice.op == "circulant":
        return _circulant_work(w, choice)
    if choice.op == "balanced":
        return float(w.balanced[choice.rows].slots * (1.1 + 0.15 * base.fields["batch"]))
    taps = _taps(w, choice)
    if choice.tiled:
        # 16 taps a tile; what is copied first serves all blocks of a dense layer
        copies = 3.0 / (math.ceil(len(w.matrix) / w.groups / TILE) if choice.dense else 1)
        return (1.1 + copies) * taps * math.ceil(_positions(base) / 16)
    if choice.op in ("rows", "quad_rows"):
        # a narrow panel reads half a weight more for each column's number, and each sample's value of it by itself
        listed = 0.5 + base.fields["batch"] if choice.rows in NARROW else 0.0
        return taps * (choice.rows + listed) / 16.0
    if choice.op == "dense":
        batch, _, _, h, width = _grid(base)
        rows, columns = choice.tile
        vectors = choice.rows / 16
        cost = max(vectors * rows * columns, vectors + rows * columns) / 2 + 0.5
        return float(taps * cost * batch * math.ceil(h / rows) * math.ceil(width / columns))
    # a loaded vector serves all rows of a block; two loads and two multiply-adds at a time
    return taps * (max(choice.rows, 1.0 + choice.rows / 6) + 0.3) / 2 * math.ceil(_positions(base) / 16)


def _taps(w: Weights, choice: Choice) -> int:
    """Of all blocks or panels."""
    if choice.tiled:
        return tile_taps(w.matrix, choice.dense)
    if choice.dense:
        return -(-len(w.matrix) // choice.rows) * int(w.matrix.shape[1])
    found = order(w, choice.rows) if choice.reordered else None
    return found.taps if found else union_taps(w.matrix, choice.rows)


def _winograd_work(w: Weights, base: Step, choice: Choice) -> float:
    """Products, transforms on both ways, and weights that come from far away."""
    m, channels = choice.tile[0], w.matrix.shape[1] // winograd.KERNEL**2
    tiles, points = _tiles(base, m) / base.fields.get("slabs", (1,))[0], (m + 2) ** 2  # of a slab, as the others' work
    vectors = -(-len(w.matrix) // choice.rows) * choice.rows / 16
    products = points * vectors * channels
    return float(tiles * (0.55 * products + 0.25 * points * channels + 6 * points * vectors) + 2 * products)


def _circulant_work(w: Weights, choice: Choice) -> float:
    """Products of panels of 16 blocks, and both transforms, for which numbers are gathered one by one."""
    b, (out, features) = choice.rows, w.matrix.shape
    return float(-(-out // (16 * b)) * -(-features // b) * b + (1 + math.log2(b) / 8) * (out + features) / 2)


def _positions(base: Step) -> int:
    batch, stride, pitch, h, w = _grid(base)
    return int((batch - 1) * stride + (h - 1) * pitch + w)


def _grid(base: Step) -> list[int]:
    """Batch, stride, pitch, height and width of what is worked on at a time: all images, or a slab of one."""
    grid: list[int] = list(base.fields["grid"])
    if "slabs" in base.fields:
        grid[3] = min(grid[3], base.fields["slabs"][2])
    return grid
