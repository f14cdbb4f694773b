"""Choose each layer's kernel by the clock: candidates are dense and every blocking of the non-zeros, timed here.

Search is greedy: first the rows in a block (and dense against sparse), then the tile, then how the threads share work.
Layers of the same shape and density share one search.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from ..engine import _native
from ..engine.native import add_step, build
from ..formats.program import Array, ProgramSpec, Step, runs
from . import recurrent
from .lowering import MAX_ROWS, Draft, Lowered, Weights
from .pack import Packed, pack, union_taps
from .recurrent import Cells

Effort = Literal["off", "fast", "thorough"]
WIDTHS = (16, 32, 64)
PANELS = ("rows", "recurrent")
"""Steps whose lanes run over outputs: their blocks are panels of `WIDTHS` outputs."""
TIMED_STEPS = 8
"""Time steps of a sequence that a candidate is timed on."""


@dataclass(frozen=True)
class Choice:
    """How one layer is packed and run."""

    rows: int
    """Output rows in a block (taps) or outputs in a panel (rows kernels)."""
    tile: int
    """Vectors of positions (taps) or samples (rows kernels) in a register block."""
    row_chunks: int = 1
    tile_chunks: int = 1
    dense: bool = False


@dataclass(frozen=True)
class Layer:
    """What was decided for one step and why, for `explain()`."""

    choice: Choice | None
    taps: int
    tried: tuple[dict[str, Any], ...]
    why: str


def tune(
    lowered: Lowered, threads: int, isa: str, effort: Effort, note: Callable[[int, int], None]
) -> tuple[ProgramSpec, list[Layer]]:
    """The program with every layer packed as the clock preferred. `note(done, total)` reports progress."""
    drafts = lowered.drafts
    isa = _native.isas()[0] if isa == "auto" else isa
    pairs = zip(drafts, lowered.program.steps, strict=True)
    choices = [_first_choice(d, s, threads, isa) if d.weights else None for d, s in pairs]
    steps = [_pack(d, s, c) if c else s for d, s, c in zip(drafts, lowered.program.steps, choices, strict=True)]
    spec = replace(lowered.program, steps=tuple(steps))
    program = build(spec, threads, isa)
    buffers = [np.zeros(e.shape, np.float32) for e in spec.externals]
    known: dict[Any, Layer] = {}
    layers: list[Layer] = []
    for at, (draft, base, choice) in enumerate(zip(drafts, lowered.program.steps, choices, strict=True)):
        note(at, len(drafts))
        if choice is None or draft.weights is None:
            layers.append(Layer(None, 0, (), "moves data"))
            continue
        signature = _signature(draft, base)
        if signature not in known:
            search = _Search(program, at, draft, base, buffers, threads, isa)
            known[signature] = search.run(choice, effort)
        layer = known[signature]
        assert layer.choice is not None
        steps[at] = _pack(draft, base, layer.choice)
        add_step(program, steps[at], at)
        layers.append(replace(layer, taps=_taps_of(steps[at])))
    note(len(drafts), len(drafts))
    return replace(spec, steps=tuple(steps)), layers


class _Search:
    """Greedy search for one layer; remembers everything it tried."""

    def __init__(
        self, program: Any, at: int, draft: Draft, base: Step, buffers: list[Array], threads: int, isa: str
    ) -> None:
        self.program, self.at, self.draft, self.base, self.buffers = program, at, draft, base, buffers
        self.threads, self.isa = threads, isa
        self.times: dict[Choice, float] = {}
        self.names: dict[Choice, str] = {}
        self.packed: dict[Any, Step] = {}
        if draft.op == "recurrent":
            self.base = replace(base, fields={**base.fields, "steps": min(base.fields["steps"], TIMED_STEPS)})

    def run(self, first: Choice, effort: Effort) -> Layer:
        if effort == "off":
            return Layer(first, 0, (), "not tuned: the cost model's choice")
        assert self.draft.weights is not None
        for rows, dense in self._blockings():
            self.time(_first_tile(replace(first, rows=rows, dense=dense), self.draft, self.threads, self.isa))
        for _ in range(2 if effort == "thorough" else 1):
            for candidate in [*self._tiles(self.best)]:
                self.time(candidate)
            for candidate in [*self._chunks(self.best)]:
                self.time(candidate)
        return Layer(self.best, 0, self._tried(), self._why())

    @property
    def best(self) -> Choice:
        """The fastest so far."""
        return min(self.times, key=self.times.__getitem__)

    def time(self, choice: Choice) -> None:
        """Time a candidate once: the best of enough runs to fill about two milliseconds."""
        if choice in self.times:
            return
        key = (choice.rows, choice.dense, choice.row_chunks if self.draft.op == "recurrent" else 0)
        packed = self.packed.get(key)
        packed = _with_choice(packed, choice) if packed else _pack(self.draft, self.base, choice)
        self.packed[key] = packed
        add_step(self.program, packed, self.at)
        warm = min(self.program.time_step(self.at, 3, self.buffers))
        repeats = int(min(max(2e-3 / max(warm, 1e-7), 4), 60))
        self.times[choice] = min(self.program.time_step(self.at, repeats, self.buffers))
        self.names[choice] = self.program.kernel_name(self.at)

    def _blockings(self) -> Iterator[tuple[int, bool]]:
        """Dense, and every blocking whose work is within twice the least."""
        assert self.draft.weights is not None
        w = self.draft.weights
        options = _options(self.draft)
        work = {rows: _work(self.draft, self.base, rows) for rows in options}
        yield options[-1], True
        if np.count_nonzero(w.matrix) < w.matrix.size:
            yield from ((rows, False) for rows in options if work[rows] <= 2 * min(work.values()))

    def _tiles(self, best: Choice) -> Iterator[Choice]:
        if self.draft.op in PANELS:
            batch = self.base.fields["batch"]
            yield from (replace(best, tile=t) for t in range(1, min(batch, _native.MAX_SAMPLES) + 1))
            return
        widest = _native.widest_tile(self.isa, best.rows)
        for tile in {widest, widest - 1, widest - 2, (widest + 1) // 2, 1 + widest // 3}:
            if tile >= 1:
                yield replace(best, tile=tile)

    def _chunks(self, best: Choice) -> Iterator[Choice]:
        for rows, tiles in (
            (1, 1),
            (1, self.threads),
            (1, 4 * self.threads),
            (self.threads, 1),
            (4 * self.threads, 1),
            (16, self.threads),
        ):
            yield replace(best, row_chunks=rows, tile_chunks=1 if self.draft.op in PANELS else tiles)

    def _tried(self) -> tuple[dict[str, Any], ...]:
        found = sorted(self.times, key=self.times.__getitem__)
        return tuple(
            {"kernel": self.names[c], "microseconds": round(1e6 * self.times[c], 2), **asdict(c)} for c in found[:12]
        )

    def _why(self) -> str:
        dense = min((t for c, t in self.times.items() if c.dense), default=None)
        sparse = min((t for c, t in self.times.items() if not c.dense), default=None)
        if dense is None or sparse is None:
            return "no zeros to skip: dense"
        if self.best.dense:
            return (
                f"dense won: {1e6 * dense:.1f} us against {1e6 * sparse:.1f} us sparse; too few or too scattered zeros"
            )
        return f"sparse won: {1e6 * sparse:.1f} us against {1e6 * dense:.1f} us dense"


def _allowed_rows(w: Weights) -> list[int]:
    """Rows in a block: any power of two without groups, else one that divides a group's rows."""
    per_group = len(w.matrix) // w.groups
    return [r for r in (1, 2, 4, MAX_ROWS) if (per_group % r == 0 if w.groups > 1 else r < 2 * per_group)]


def _options(draft: Draft) -> Sequence[int]:
    """Rows that a block may have."""
    assert draft.weights is not None
    return WIDTHS if draft.op in PANELS else _allowed_rows(draft.weights)


def _work(draft: Draft, base: Step, rows: int) -> float:
    """Vector operations that a blocking needs: multiply-adds, or loads where they are more."""
    assert draft.weights is not None
    w = draft.weights
    if draft.op == "recurrent":
        return recurrent.arrange(w.matrix, _cells(base), rows, 1, False).columns() * rows / 16
    taps = union_taps(w.matrix, rows)
    return taps * rows / 16 if draft.op == "rows" else taps * (max(rows, 1.0 + rows / 6) + 0.3)


def _cells(base: Step) -> Cells:
    return Cells(base.fields["cell"], base.fields["hidden"], base.fields["directions"])


def _first_choice(draft: Draft, base: Step, threads: int, isa: str) -> Choice:
    """The cost model's guess."""
    assert draft.weights is not None
    w = draft.weights
    rows = min(_options(draft), key=lambda r: (_work(draft, base, r), -r))
    dense = bool(np.count_nonzero(w.matrix) == w.matrix.size)
    return _first_tile(Choice(rows, 1, dense=dense), draft, threads, isa)


def _first_tile(choice: Choice, draft: Draft, threads: int, isa: str) -> Choice:
    """A good tile and split for a blocking."""
    assert draft.weights is not None
    if draft.op in PANELS:
        samples = min(draft.weights.pixels, _native.MAX_SAMPLES)
        chunks = 2 * threads if draft.op == "rows" else threads
        return replace(choice, tile=samples, row_chunks=chunks, tile_chunks=1)
    widest = _native.widest_tile(isa, choice.rows)
    tiles = draft.weights.pixels / (widest * _native.lanes(isa))
    by_tiles = tiles >= 2 * threads
    return replace(
        choice, tile=widest, row_chunks=1 if by_tiles else 2 * threads, tile_chunks=4 * threads if by_tiles else 1
    )


def _signature(draft: Draft, base: Step) -> Any:
    """Layers that are alike enough to share a search: same shape, and per blocking nearly the same share of taps."""
    assert draft.weights is not None
    w = draft.weights
    density = tuple(round(50 * union_taps(w.matrix, r) * r / w.matrix.size) for r in _options(draft))
    geometry = base.fields["batch"] if draft.op in PANELS else tuple(base.fields["grid"])
    if draft.op == "recurrent":
        geometry = (geometry, base.fields["steps"], _cells(base))
    phases = 1 if draft.op in PANELS else len(base.fields["planes"])
    fused = draft.op == "taps" and bool(base.fields["residual"])
    return draft.op, w.matrix.shape, w.groups, geometry, density, phases, fused, draft.node.act


def _taps_of(step: Step) -> int:
    if step.op == "recurrent":
        return int(np.dot(step.arrays["panels"], np.diff(step.arrays["start"])))
    blocks = len(step.arrays["bias"]) // int(step.fields["mb" if step.op == "taps" else "width"])
    return blocks * int(step.fields["columns"]) if step.fields["dense"] else len(step.arrays["index"])


def _with_choice(step: Step, choice: Choice) -> Step:
    """The same packing with another tile and split."""
    if step.op in PANELS:
        return replace(step, fields={**step.fields, "samples": choice.tile, "row_chunks": choice.row_chunks})
    tile = {"vectors": choice.tile, "row_chunks": choice.row_chunks, "tile_chunks": choice.tile_chunks}
    return replace(step, fields={**step.fields, **tile})


def _pack(draft: Draft, base: Step, choice: Choice) -> Step:
    """The final step: weights packed, planes padded to whole blocks."""
    assert draft.weights is not None
    w = draft.weights
    if draft.op == "recurrent":
        more, found = recurrent.pack(w.matrix, w.bias, _cells(base), choice.rows, choice.row_chunks, choice.dense)
        return _with_choice(Step("recurrent", base.name, {**base.fields, **more}, {**base.arrays, **found}), choice)
    packed = pack(w.matrix, w.bias, choice.rows, w.groups, choice.dense)
    fields = dict(base.fields) | {"columns": w.matrix.shape[1], "dense": choice.dense}
    arrays: dict[str, Array] = {**base.arrays, "value": packed.value, "bias": packed.bias}
    if not choice.dense:
        arrays |= _compressed(packed)
    if draft.op == "rows":
        fields["width"] = choice.rows
        return _with_choice(Step("rows", base.name, fields, arrays), choice)
    spare = len(packed.bias) - len(w.matrix)
    spill, zero, residual = fields.pop("spill"), fields.pop("zero"), fields["residual"]
    fields |= {
        "mb": choice.rows,
        "out": runs([*fields["out"], *[spill] * spare]),
        "residual": runs([*residual, *[zero] * spare]) if residual else [],
    }
    if choice.dense and w.groups > 1:
        blocks = len(packed.bias) // choice.rows
        fields["block_group"] = [b * choice.rows // (len(w.matrix) // w.groups) for b in range(blocks)]
    return _with_choice(Step("taps", base.name, fields, arrays), choice)


def _compressed(packed: Packed) -> dict[str, Array]:
    """Row pointers and columns; 16 bits a column where they fit."""
    small = packed.taps == 0 or int(packed.index.max()) < 1 << 16
    return {"start": packed.start, "index": packed.index.astype(np.uint16 if small else np.int32)}
