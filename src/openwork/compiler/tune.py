"""Choose each layer's kernel by the clock.

First alone: every promising packing, then tiles of the better ones. Then in the network: the kernels that came out
ahead, each with several cuts of its work for the threads, are timed while the whole program runs, because what lies in
which core's cache decides which cut is best. Layers of the same shape and density share a search.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..engine import _native
from ..engine.native import add_step, build
from ..formats.program import ProgramSpec, Step
from . import balanced, winograd
from .candidates import (
    LANES_OVER_OUTPUTS,
    SHORT_CUTS,
    WIDTHS,
    Choice,
    Packing,
    allowed_rows,
    cuts,
    first,
    in_pieces,
    kernels,
    multiply_adds,
    tiles,
)
from .drafts import TILE, Draft, Lowered
from .pack import layer_step, union_taps, with_tile
from .recurrent import Cells
from .reorder import order, reordered

Effort = Literal["off", "fast", "thorough"]

CLOSE = 1.25
"""Kernels that are within this factor of the fastest alone are timed in the network too."""

FILLED = 0.9
"""Share of the other kernels' time alone that a balanced one must do with: it takes more memory."""

TIMED_STEPS = 8
"""Time steps of a sequence that a candidate is timed on alone."""

FASTER = 0.985
"""All layers become dense if the whole network then takes less than this share of its time."""

OVERRULED = "dense: sparse kernels are faster alone, but the whole network is faster without them"

DIRECT = "no zeros worth skipping: dense, read with its stride where the input lies"

RIVAL = 2.0
"""Dense kernels within this factor of the fastest alone may win in the network, so they are timed as carefully."""

_MILLISECONDS = {"fast": 2.0, "thorough": 6.0}
"""How long a candidate is timed alone."""


@dataclass(frozen=True)
class Layer:
    """What was decided for one step and why, for `explain()`."""

    choice: Choice | None
    taps: int
    tried: tuple[dict[str, Any], ...]
    why: str
    multiply_adds: int | None = None
    """Done in a run, if not the non-zero weights times the outputs."""


@dataclass(eq=False)
class _Search:
    """The layers that share a search, and what is known of their candidates."""

    members: list[int]
    alone: dict[Choice, float] = field(default_factory=dict)
    """Seconds of one layer, again and again."""
    together: dict[Choice, float] = field(default_factory=dict)
    """Seconds of all members while the network runs."""
    dropped: dict[Choice, float] = field(default_factory=dict)
    """The same of those that did not come to the last round."""
    names: dict[Choice, str] = field(default_factory=dict)
    overruled: bool = False
    """Whether the best dense kernel is taken for the whole network's sake."""

    def best(self) -> Choice:
        """The fastest so far: in the network, where it was timed there."""
        times = self.together or _worthwhile(self.alone)
        return min(times, key=times.__getitem__)

    def dense(self) -> Choice:
        """The fastest that computes zeros like other weights; the fastest of all, if none does."""
        for times in (self.together, self.dropped, self.alone):
            if found := [choice for choice in times if choice.dense]:
                return min(found, key=times.__getitem__)
        return self.best()


def tune(
    lowered: Lowered, threads: int, isa: str, effort: Effort, note: Callable[[int, int], None]
) -> tuple[ProgramSpec, list[Layer]]:
    """The program with every layer packed as the clock preferred. `note(done, total)` reports progress."""
    isa = _native.isas()[0] if isa == "auto" else isa
    return _Tuner(lowered, threads, isa, effort, note).run()


class _Tuner:
    """One native program, whose steps are replaced by their candidates."""

    def __init__(
        self, lowered: Lowered, threads: int, isa: str, effort: Effort, note: Callable[[int, int], None]
    ) -> None:
        self.drafts, self.bases = lowered.drafts, lowered.program.steps
        self.threads, self.isa, self.effort, self.note = threads, isa, effort, note
        self.packed: dict[tuple[int, Packing], Step] = {}
        self.choices: list[Choice | None] = [
            first(d, b, threads, isa) if d.weights else None for d, b in zip(self.drafts, self.bases, strict=True)
        ]
        self.spec = replace(lowered.program, steps=tuple(map(self._step, range(len(self.drafts)))))
        self.program = build(self.spec, threads, isa)
        self.shortened: dict[int, bool] = {}
        self.buffers = [np.zeros(e.shape, np.float32) for e in self.spec.externals]

    def run(self) -> tuple[ProgramSpec, list[Layer]]:
        searches = self._searches()
        if self.effort != "off":
            for i, search in enumerate(searches):
                self.note(i, len(searches) + 1)
                self._alone(search)
            self.note(len(searches), len(searches) + 1)
            self._together(searches)
            self._or_all_dense(searches)
        self.note(len(searches) + 1, len(searches) + 1)
        found = {at: search for search in searches for at in search.members}
        steps = tuple(map(self._step, range(len(self.drafts))))
        layers = [self._layer(at, steps[at], found.get(at)) for at in range(len(steps))]
        return replace(self.spec, steps=steps), layers

    def _searches(self) -> list[_Search]:
        groups: dict[Any, list[int]] = defaultdict(list)
        for at, (draft, base) in enumerate(zip(self.drafts, self.bases, strict=True)):
            if draft.weights:
                groups[_signature(draft, base)].append(at)
        return [_Search(members) for members in groups.values()]

    # ---- steps ----

    def _step(self, at: int, alone: bool = False) -> Step:
        """The step as its choice wants it; packings are kept."""
        choice, weights = self.choices[at], self.drafts[at].weights
        if choice is None or weights is None:
            return self.bases[at]
        key = (at, choice.packing)
        if key not in self.packed:
            base = self.bases[at]
            if choice.reordered:
                base, weights = reordered(base, weights, choice.rows)
            self.packed[key] = layer_step(base, weights, choice)
        step = with_tile(self.packed[key], choice)
        if alone and step.op == "recurrent":
            return replace(step, fields={**step.fields, "steps": min(step.fields["steps"], TIMED_STEPS)})
        return step

    def _choose(self, at: int, choice: Choice, alone: bool = False) -> None:
        """Let the native program run a candidate; a `recurrent` one alone on a few time steps only."""
        if (self.choices[at], self.shortened.get(at, False)) != (choice, alone):
            self.choices[at], self.shortened[at] = choice, alone
            add_step(self.program, self._step(at, alone), at)

    # ---- a layer alone ----

    def _alone(self, search: _Search) -> None:
        """Time every packing, then other tiles of the fastest packings."""
        at = search.members[0]
        found = kernels(self.drafts[at], self.bases[at], self.threads, self.isa)
        self._race(search, at, found)
        self._race(search, at, [c for c in (in_pieces(self.bases[at], f) for f in found) if c])
        for choice in dict.fromkeys([*_ahead(search.alone), *_ahead(_dense_rivals(search.alone))]):
            self._race(search, at, list(tiles(self.drafts[at], self.bases[at], choice, self.threads, self.isa)))
        keep = {c.packing for c in _ahead(search.alone)}
        for key in [k for k in self.packed if k[0] == at and k[1] not in keep]:
            del self.packed[key]
        for member in search.members:
            self._choose(member, search.best())

    def _race(self, search: _Search, at: int, choices: list[Choice]) -> None:
        """Time candidates in turn, the hopeless ones once."""
        lap: dict[Choice, float] = {}
        for choice in choices:
            if choice not in search.alone:
                lap[choice] = self._time(at, choice, 0)
                search.names[choice] = self.program.kernel_name(at)
        search.alone |= lap
        dense = _dense_rivals(search.alone)
        limits = {c: 1.5 * min((dense if c in dense else search.alone).values()) for c in lap}
        for _ in range(2):
            for choice in lap:
                if search.alone[choice] <= limits[choice]:
                    search.alone[choice] = min(search.alone[choice], self._time(at, choice, search.alone[choice]))

    def _time(self, at: int, choice: Choice, expected: float) -> float:
        """Best of a few runs, of more if one is short."""
        self._choose(at, choice, alone=self.drafts[at].op == "recurrent")
        warm = min(self.program.time_step(at, 2, self.buffers)) if expected == 0 else expected
        repeats = int(np.clip(_MILLISECONDS[self.effort] / 2e3 / max(warm, 1e-7), 2, 30))
        return float(min(self.program.time_step(at, repeats, self.buffers)))

    # ---- in the network ----

    def _together(self, searches: Sequence[_Search]) -> None:
        """Time cuts and the close kernels of all layers at once, one candidate of each layer a run."""
        for _ in range(2 if self.effort == "thorough" else 1):
            self._runs(searches, [list(cuts(self.bases[s.members[0]], s.best(), self.threads)) for s in searches])
            self._runs(searches, [self._rivals(s) for s in searches])
        # once more, with everybody else where they belong: a lucky run must not decide
        finals = [sorted(s.together, key=s.together.__getitem__)[:3] for s in searches]
        for search in searches:
            search.dropped, search.together = search.together, {}
        self._runs(searches, finals, 2)
        self._runs(searches, finals, 2)

    def _or_all_dense(self, searches: Sequence[_Search]) -> None:
        """Sparse kernels stay if the network is not slower with them: what is a little faster layer by layer may lose
        together, where weights and their lists come from farther away."""
        sides = [{s: s.best() for s in searches}, {s: s.dense() for s in searches}]
        if sides[0] == sides[1]:
            return
        seconds: list[list[float]] = [[], []]
        for turn in range(10):
            seconds[turn % 2].append(self._whole(sides[turn % 2]))
        ours, dense = map(np.median, seconds)
        winner = sides[int(dense < FASTER * ours)]
        self._whole(winner)
        for search in searches:
            search.overruled = winner[search] != search.best()

    def _whole(self, choices: Mapping[_Search, Choice]) -> float:
        """Seconds of a run of the whole network with these choices, which it keeps."""
        for search, choice in choices.items():
            for member in search.members:
                self._choose(member, choice)
        once = sum(self.program.profile(2, self.buffers)[1])
        repeats = int(np.clip(0.03 / max(once, 1e-6), 3, 30))
        return float(np.median([sum(run) for run in self.program.profile(repeats, self.buffers)]))

    def _rivals(self, search: _Search) -> list[Choice]:
        """The best of the other close packings, with the cut that is best so far and with their own."""
        best = search.best()
        found = []
        for choice in _ahead(search.alone):
            if choice.packing != best.packing:
                found += [choice, replace(choice, row_chunks=best.row_chunks, tile_chunks=best.tile_chunks)]
        return [*dict.fromkeys(found)]

    def _runs(self, searches: Sequence[_Search], options: list[list[Choice]], factor: int = 1) -> None:
        """Give each search its options' seconds in the network; the searches keep their best."""
        repeats = 0
        for turn in range(max(map(len, options), default=0)):
            for search, choices in zip(searches, options, strict=True):
                if turn < len(choices):
                    for member in search.members:
                        self._choose(member, choices[turn])
            if not repeats:
                once = sum(self.program.profile(2, self.buffers)[1])
                repeats = factor * int(np.clip(0.1 / max(once, 1e-6), 3, 20))
            seconds = np.sort(np.asarray(self.program.profile(repeats + 1, self.buffers)[1:]), axis=0)
            typical = seconds[len(seconds) // 3]
            for search, choices in zip(searches, options, strict=True):
                if turn < len(choices):
                    spent = float(typical[search.members].sum())
                    search.together[choices[turn]] = min(search.together.get(choices[turn], spent), spent)
                    search.names.setdefault(choices[turn], self.program.kernel_name(search.members[0]))
        for search in searches:
            for member in search.members:
                self._choose(member, search.best())

    # ---- what explain() shows ----

    def _layer(self, at: int, step: Step, search: _Search | None) -> Layer:
        choice, fixed = self.choices[at], self.drafts[at].fixed
        if fixed:
            return Layer(None, fixed.matrix.size, (), "one kernel fits: every weight of each plane")
        if choice is None or search is None:
            return Layer(None, 0, (), "moves data")
        each, at = len(search.members), search.members[0]
        done = multiply_adds(self.drafts[at], self.bases[at], choice)
        if not search.alone:
            return Layer(choice, _taps_of(step), (), "not tuned: the cost model's choice" + _order(choice), done)
        lists = [
            (search.together, "in the network", each),
            (search.dropped, "in a first round", each),
            (search.alone, "alone", 1),
        ]
        rows = tuple(
            {"kernel": search.names[c], "microseconds": round(1e6 * t / many, 2), "where": where, **asdict(c)}
            for times, where, many in lists
            for c, t in sorted(times.items(), key=lambda item: item[1])[:8]
        )
        if search.overruled:
            return Layer(choice, _taps_of(step), rows, OVERRULED, done)
        why = DIRECT if self.drafts[at].op == "dense" else _why(choice, search.alone)
        return Layer(choice, _taps_of(step), rows, why, done)


def _ahead(times: dict[Choice, float]) -> list[Choice]:
    """The fastest choice of each packing that is close to the fastest of all, best first.

    Beside Winograd's convolution also the fastest other one: its weights are fewer, and in a network all weights come
    from farther away than they do alone.
    """
    if not times:
        return []
    times = _worthwhile(times)
    best: dict[Any, Choice] = {}
    for choice in sorted(times, key=times.__getitem__):
        best.setdefault(choice.packing, choice)
    least = min(times.values())
    plain = next((c for c in best.values() if c.op != "winograd"), None)
    return [c for c in best.values() if times[c] <= CLOSE * least or c == plain]


def _dense_rivals(times: dict[Choice, float]) -> dict[Choice, float]:
    """The dense kernels, if the best of them may yet overrule a sparse one."""
    dense = {c: t for c, t in times.items() if c.dense}
    return dense if dense and min(dense.values()) <= RIVAL * min(times.values()) else {}


def _worthwhile(times: dict[Choice, float]) -> dict[Choice, float]:
    """Without balanced kernels that bring next to nothing: slots that are filled up make their weights larger."""
    others = {c: t for c, t in times.items() if c.op != "balanced"}
    return others if others and min(times.values()) > FILLED * min(others.values()) else times


def _why(choice: Choice, times: dict[Choice, float]) -> str:
    if choice.op in SHORT_CUTS:
        others = min((t for c, t in times.items() if c.op != choice.op), default=math.nan)
        least = min(t for c, t in times.items() if c.op == choice.op)
        return (
            f"{choice.op} won: alone {1e6 * least:.1f} us, {1e6 * others:.1f} us with every product of the definition"
        )
    dense = min((t for c, t in times.items() if c.dense), default=None)
    sparse = min((t for c, t in times.items() if not c.dense), default=None)
    if sparse is None:
        return "no zeros to skip: dense"
    if dense is None:
        return f"sparse for the sake of sparser levels: alone {1e6 * sparse:.1f} us with all weights{_order(choice)}"
    compared = f"alone {1e6 * dense:.1f} us dense, {1e6 * sparse:.1f} us sparse"
    if choice.dense:
        return f"dense won: {compared}; too few or too scattered zeros"
    return f"sparse won: {compared}{_order(choice)}"


def _order(choice: Choice) -> str:
    if choice.op == "balanced":
        return f"; balanced: each row takes one of {choice.rows} inputs at a time"
    return "; rows that share taps lie side by side" if choice.reordered else ""


def _signature(draft: Draft, base: Step) -> Any:
    """Layers that are alike enough to share a search: same shape, and per blocking nearly the same share of taps."""
    assert draft.weights is not None
    w = draft.weights
    many = draft.op not in LANES_OVER_OUTPUTS
    heights = (1, 4, 8, *([TILE] if draft.op == "quad_taps" else [])) if many else (1, 4, *WIDTHS)
    density = tuple(round(50 * union_taps(w.matrix, r) * r / w.matrix.size) for r in heights)
    if draft.op == "taps":
        orders = ((r, order(w, r)) for r in allowed_rows(w))
        density += tuple(round(50 * found.taps * r / w.matrix.size) if found else -1 for r, found in orders)
    geometry = (*base.fields["grid"], *base.fields.get("slabs", ())) if many else (base.fields["batch"],)
    if draft.op == "recurrent":
        geometry += (base.fields["steps"], Cells.of(base.fields))
    phases = len(base.fields["planes"]) if many else 1
    fused = many and bool(base.fields["residual"])
    square = many and not w.whole and winograd.applies(base.fields, w.groups)
    levels = tuple(round(50 * np.count_nonzero(level.keep) / level.keep.size) for level in w.levels)
    few: Any = ()
    if draft.op == "rows":
        fits = () if w.levels else w.balanced.values()
        few = w.circulant, tuple((f.window, round(50 * balanced.PANEL * f.slots / w.matrix.size)) for f in fits)
    return draft.op, levels, w.matrix.shape, w.groups, geometry, density, phases, fused, draft.node.act, square, few


def _taps_of(step: Step) -> int:
    if step.op == "recurrent":
        return int(np.dot(step.arrays["panels"], np.diff(step.arrays["start"])))
    if step.op == "circulant":
        return len(step.arrays["value"])
    if step.op == "balanced":
        return len(step.arrays["begin"])
    rows = int(step.fields["mb" if "mb" in step.fields else "width"])
    if step.op == "winograd":
        return len(step.arrays["value"]) // ((int(step.fields["tile"]) + 2) ** 2 * rows) * winograd.KERNEL**2
    if step.fields["dense"]:
        return len(step.arrays["bias"]) // rows * int(step.fields["columns"])
    return len(step.arrays["index"])
