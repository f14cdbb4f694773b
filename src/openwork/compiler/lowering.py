"""What lowering works with: values in the layout that an operator wants, steps as drafts, PyTorch calls.

Steps hold symbolic storage until the plan has placed it; `emit` then writes plain numbers. `ops/` has one function for
each kind of node.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, chain
from typing import Any

from ..formats.program import Array, ProgramSpec, Segment, TensorSpec, TorchCall, runs
from .drafts import (
    MAX_ROWS,
    TILE,
    Draft,
    Integers,
    Lowered,
    Pair,
    Weights,
    batch_of,
    clear_drafts,
    epilogue_fields,
    image_fields,
    position_fields,
    size_of,
)
from .graph import Graph, Node
from .integers import Bytes
from .layout import (
    QUAD,
    External,
    Grid,
    Image,
    Planes,
    PlaneView,
    Quads,
    Rows,
    RowsView,
    Slabs,
    View,
    plane_shape,
)
from .plan import plan


class Lowering:
    """Collects the steps of a program. `node` is the one being lowered."""

    def __init__(self, graph: Graph, slabs: int = 1, nested: bool = False) -> None:
        self.graph = graph
        self.nested = nested
        """Whether weights are to hold several levels, which taps and rows know and no other kernel."""
        self.slabs = Slabs(slabs)
        self.users = graph.users()
        self.values: dict[str, View] = {}
        self.quads: dict[str, Quads] = {}
        """Values that lie in bytes; `view` makes floats of them for those who read floats."""
        self.unrounded: dict[str, str] = {}
        """Features that are to be rounded, and what they are before: who multiplies features rounds them."""
        self.tokens: dict[str, Quads] = {}
        """Bytes of tokens that have scales of their own; layers of whole numbers read these, others `values`."""
        self.rounding: dict[tuple[str, Bytes | int], Quads] = {}
        """Bytes of a value on a grid, or of tokens up to a whole number, where the step that makes the value has stored
        them beside its floats."""
        self.shapes = {n.name: n.shape for n in graph}
        self.dtypes = {n.name: str(n.attrs.get("dtype", "float32")) for n in graph if n.op in ("input", "torch")}
        self.cache: dict[Any, Any] = {}
        self.drafts: list[Draft] = []
        self.externals: list[TensorSpec] = []
        self.inputs: list[int] = []
        self.segments: list[Segment] = []
        self.calls: list[TorchCall] = []
        self.in_torch: set[str] = set()
        self.node = graph.nodes[0]

    def finish(self) -> Lowered:
        """Place everything and write the steps down."""
        outputs = [self._export(name) for name in self.graph.outputs]
        self._close_torch()
        self._close_native()
        self._settle_slabs()
        placed = plan(self.drafts, self.slabs)
        self._replace([[*clear_drafts(d.node, placed.clears.get(at, ())), d] for at, d in enumerate(self.drafts)])
        steps = tuple(d.emit() for d in self.drafts)
        constants = {
            n.constants[k]: self.graph.constant(n, k) for n in self.graph if n.op == "torch" for k in n.constants
        }
        program = ProgramSpec(
            placed.arena,
            tuple(self.externals),
            tuple(self.inputs),
            tuple(outputs),
            steps,
            tuple(self.segments),
            constants,
        )
        return Lowered(program, tuple(self.drafts))

    def _settle_slabs(self) -> None:
        """Keep images whole where a step needs them so; halos that nobody then has are dropped."""
        for draft in self.drafts:
            if not draft.slabs:
                _keep_whole([*draft.sources, *draft.targets])
        # from the end: a source that has to be whole may be another one's target
        for draft in reversed(self.drafts):
            if draft.alike and not all(isinstance(v, PlaneView) and v.grid.slab_rows for v in draft.targets):
                _keep_whole(draft.sources)
        cut = [any(isinstance(v, PlaneView) and v.grid.slab_rows for v in d.targets) for d in self.drafts]
        self._replace([[d] if c or not d.halo else [] for d, c in zip(self.drafts, cut, strict=True)])

    # ---- values in the layout that an operator wants ----

    def external(self, name: str, shape: tuple[int, ...]) -> External:
        """A new buffer outside the arena, for the value `name`."""
        self.externals.append(TensorSpec(name, shape, self.dtypes.get(name, "float32")))
        return External(len(self.externals) - 1, shape)

    def view(self, name: str) -> View:
        """A value wherever it lies; one that PyTorch computed arrives in an external buffer."""
        if name in self.unrounded and name not in self.values:
            self.as_quads(name, self.graph[name]["bytes"])
        if name in self.quads and name not in self.values:
            self.values[name] = self.floats(self.quads[name])
        if name not in self.values:
            assert name in self.in_torch, name
            self.values[name] = self.external(name, self.shapes[name])
            self._give_buffer(name, self.values[name])
        return self.values[name]

    def planes(self, name: str) -> PlaneView:
        """A value as planes, copied there where it lies otherwise: images, tokens [N, S, C] or features [N, C]."""
        view = self.view(name)
        if isinstance(view, PlaneView):
            return view
        if ("planes", name) not in self.cache:
            n, c, h, w = plane_shape(self.shapes[name])
            target = self.new_planes(Grid(n), c, h, w)
            if len(self.shapes[name]) == 4:
                self.copy(view, target)
            else:
                self.rows_to_planes(view, target)
            self.cache["planes", name] = target
        return self.cache["planes", name]  # type: ignore[no-any-return]

    def as_quads(self, name: str, found: Bytes) -> Quads:
        """A value that lies on a grid, as bytes."""
        if name not in self.quads:
            self.quads[name] = self.rounded(self.planes(self.unrounded.get(name, name)), found)
        return self.quads[name]

    def rounded(self, source: PlaneView, found: Bytes) -> Quads:
        """Bytes of the numbers of a grid that are nearest to a value's."""
        made = self.new_quads(source, found)
        target = made.view

        def fields() -> dict[str, Any]:
            return {"x": source.runs(), "y": target.runs(), **position_fields(target), **found.fields}

        self.draft("quantize", [source], [target], fields).slabs = True
        return made

    def new_quads(self, like: PlaneView, found: Bytes) -> Quads:
        """Fresh bytes for as many channels on the same grid of positions."""
        target = self.new_planes(like.grid, -(-len(like.channels) // QUAD), like.h, like.w)
        return Quads(target, tuple(range(len(like.channels))), found.scale, found.signed)

    def new_tokens(self, like: PlaneView, token: PlaneView) -> Quads:
        """Fresh bytes for as many channels of tokens whose scales are `token`."""
        return replace(self.new_quads(like, Bytes(1.0, -1, 1)), token=token)

    def floats(self, source: Quads) -> PlaneView:
        """The numbers that bytes stand for."""
        target = self.new_planes(source.view.grid, len(source.lanes), source.view.h, source.view.w)
        spill = self.zeros(target, "spill") if not source.in_order else None
        channels = dict(zip(source.lanes, target.channels, strict=True))
        everything = [channels.get(lane, spill) for lane in range(max(source.lanes) + 1)]
        whole = replace(target, channels=tuple(c for c in everything if c is not None))

        def fields() -> dict[str, Any]:
            return {
                "x": source.view.runs(),
                "y": whole.runs(),
                **position_fields(target),
                "scale": source.scale,
                "signed": source.signed,
            }

        self.draft("dequantize", [source.view], [whole], fields).slabs = True
        return target

    def choose(self, name: str, index: Sequence[int]) -> None:
        """Let the node's value be some channels of another one, in any order: nothing moves."""
        if (quads := self.quads.get(name)) and len(set(index)) == len(index):
            self.quads[self.node.name] = quads.chosen(index)
        else:
            self.values[self.node.name] = self.planes(name).chosen(index)

    def round_own(self, found: Bytes) -> None:
        """Let the node's value, which was stored as floats, be bytes: nobody may read what it was before."""
        self.quads[self.node.name] = self.rounded(self.planes(self.node.name), found)
        del self.values[self.node.name]

    def rows(self, name: str) -> RowsView:
        """A value as rows of features: [N, ...] flattened after the batch, or [..., F] by its last axis."""
        view, shape = self.view(name), self.shapes[name]
        if isinstance(view, RowsView):
            return view
        if ("rows", name) not in self.cache:
            batch = shape[0] if len(shape) == 4 else math.prod(shape[:-1])
            target = RowsView(Rows(batch, math.prod(shape) // batch), shape if len(shape) == 4 else (batch, shape[-1]))
            if isinstance(view, PlaneView) and len(shape) < 4:
                self.planes_to_rows(view, target)
            else:
                self.copy(External(view.buffer, target.shape) if isinstance(view, External) else view, target)
            self.cache["rows", name] = target
        return self.cache["rows", name]  # type: ignore[no-any-return]

    def phases(
        self, name: str, stride: Pair, wanted: set[Pair], halo: bool = False, quads: Quads | None = None
    ) -> dict[Pair, PlaneView]:
        """Phase (a, b) holds x[:, :, a::sh, b::sw], in slabs with their `halo`; phases of one value share a grid.
        They are those of its `quads` if these are given."""
        n, c, h, w = self.shapes[name]
        c = len(quads.view.channels) if quads else c
        key = ("phases", name, stride, quads)
        if key not in self.cache:
            self.cache[key] = (Grid(n), {})
        grid, found = self.cache[key]
        ph, pw = -(-h // stride[0]), -(-w // stride[1])
        missing = sorted(wanted - set(found))
        for phase in missing:
            found[phase] = self.new_planes(grid, c, ph, pw)
            found[phase].channels[0][0].private = bool(
                h % stride[0] or w % stride[1]
            )  # some phases lack a last row or column
        filled = [(a, b) for a, b in missing if a < h and b < w]  # the others have no pixel, and stay zero
        if filled:
            source = quads.view if quads else self.view(name)
            self.split(source, [found[p] for p in filled], filled, stride, (h, w), halo)
        return {phase: found[phase] for phase in wanted}

    def new_planes(self, grid: Grid, channels: int, h: int, w: int) -> PlaneView:
        """Fresh planes on a grid."""
        grid.need(h, w)
        grid.cut(self.slabs, h, w)
        storage = Planes(grid, channels, h, w)
        return PlaneView(grid, h, w, tuple((storage, c) for c in range(channels)))

    def zeros(self, like: PlaneView, use: str) -> tuple[Planes, int]:
        """A plane of the grid that always is zero ('zero'), or that takes what nobody reads ('spill')."""
        key = (use, id(like.grid.root), like.h, like.w)
        if key not in self.cache:
            self.cache[key] = Planes(like.grid, 1, like.h, like.w, permanent=True)
        return self.cache[key], 0

    # ---- steps ----

    def draft(
        self,
        op: str,
        sources: Sequence[View],
        targets: Sequence[View],
        fields: Callable[[], dict[str, Any]],
        **arrays: Array,
    ) -> Draft:
        """Append a step."""
        self._close_torch()
        made = Draft(op, self.node, list(sources), list(targets), fields, dict(arrays))
        self.drafts.append(made)
        return made

    def copy(
        self,
        source: View,
        target: View,
        origin: Pair = (0, 0),
        step: Pair = (1, 1),
        size: Pair | None = None,
        at: Pair = (0, 0),
    ) -> None:
        """Copy `size` pixels of every plane, from `origin` in strides of `step`, to `at` in the target."""
        size = size or size_of(target)
        if isinstance(target, PlaneView):
            self.cache |= {("halo", c): True for c in target.channels}

        def fields() -> dict[str, Any]:
            x, y = source.image, target.image
            planes = len(x.offsets)
            return {
                **({"halo": target.grid.halo} if isinstance(target, PlaneView) and y.slabs else {}),
                "from": [[origin[0], 0, planes]],
                "x": image_fields(x, [o + origin[1] for o in x.offsets]),
                "y": image_fields(y, [o + at[0] * y.pitch + at[1] for o in y.offsets]),
                "batch": batch_of(source),
                "step": list(step),
                "rows": [[size[0], 0, planes]],
                "columns": [[size[1], 0, planes]],
            }

        self.draft("copy", [source], [target], fields).slabs = at[0] == 0

    def slope(self, node: Node) -> dict[str, Array]:
        """The array that an activation fused into a node needs, beside `epilogue_fields`; mostly none."""
        return {"slope": self.graph.constant(node, "slope")} if "slope" in node.constants else {}

    def windows(self, source: PlaneView, target: PlaneView, stride: int, before: int, span: int) -> None:
        """Let slabs of a source hold all rows that windows of `span` rows for the same slabs of a target reach."""
        if source.grid.slab_rows and target.grid.slab_rows:
            above, below = self.slabs.reach(source.grid.slab_rows, target.grid.slab_rows, stride, before, span)
            source.grid.need(source.h, source.w, (above, 0), (below, 0))
            self.halo(source)

    def halo(self, view: PlaneView) -> None:
        """Let every slab of a value hold the rows of its neighbours that the readers on its grid reach."""
        missing = [c for c in view.channels if ("halo", c) not in self.cache]
        self.cache |= {("halo", c): True for c in missing}
        if not missing or not view.grid.slab_rows:
            return
        part = PlaneView(view.grid, view.h, view.w, tuple(missing))

        def fields() -> dict[str, Any]:
            image, planes = image_fields(part.image, part.offsets()), len(missing)
            rows, columns = [[part.h, 0, planes]], [[part.w, 0, planes]]
            return {"x": image, "y": image, "batch": 1, "step": [1, 1], "rows": rows, "columns": columns,
                    "halo": part.grid.halo, "only_halo": True}  # fmt: skip

        made = self.draft("copy", [part], [part], fields)
        made.slabs = made.halo = True

    def rows_to_planes(self, source: View, target: PlaneView) -> None:
        """Turn tokens [N, S, C], a row of features each, into a plane for each feature."""

        def fields() -> dict[str, Any]:
            base, stride, buffer = _row_place(source, target)
            y, planes = target.image, len(target.channels)
            x = Image(buffer, 0, stride * target.w, [])
            return {
                "x": image_fields(x, [base + c for c in range(planes)]),
                "y": image_fields(y, y.offsets),
                "batch": target.grid.batch,
                "step": [1, stride],
                "rows": [[1, 0, planes]],
                "columns": [[target.w, 0, planes]],
            }

        self.draft("copy", [source], [target], fields)

    def planes_to_rows(self, source: PlaneView, target: View) -> None:
        """Turn a plane for each feature into tokens [N, S, C], a row of features each."""
        storages = {id(planes) for planes, _ in source.channels}
        channels = [c for _, c in source.channels]
        if len(storages) > 1 or channels != list(range(channels[0], channels[0] + len(channels))):
            moved = self.new_planes(Grid(source.grid.batch), len(channels), source.h, source.w)
            self.copy(source, moved)
            source = moved
        gathered = source

        def fields() -> dict[str, Any]:
            base, stride, buffer = _row_place(target, gathered)
            tokens, first = gathered.w, gathered.offsets()[0]
            x = Image(-1, 0, gathered.grid.stride, [])
            y = Image(buffer, 0, stride * tokens, [])
            return {
                "x": image_fields(x, [first + s for s in range(tokens)]),
                "y": image_fields(y, [base + s * stride for s in range(tokens)]),
                "batch": gathered.grid.batch,
                "step": [1, gathered.grid.plane],
                "rows": [[1, 0, tokens]],
                "columns": [[len(gathered.channels), 0, tokens]],
            }

        self.draft("copy", [source], [target], fields)

    def split(
        self, source: View, targets: list[PlaneView], phases: list[Pair], stride: Pair, size: Pair, halo: bool
    ) -> None:
        """Copy some phases of a value in one step."""
        if halo:
            self.cache |= {("halo", c): True for t in targets for c in t.channels}

        def fields() -> dict[str, Any]:
            x, y = source.image, targets[0].image
            planes = len(x.offsets)
            origins = [o + b for _, b in phases for o in x.offsets]
            return {
                **({"halo": targets[0].grid.halo} if y.slabs and halo else {}),
                "together": len(phases),
                "from": [[a, 0, planes] for a, _ in phases],
                "x": image_fields(x, origins),
                "y": image_fields(y, [o for t in targets for o in t.offsets()]),
                "batch": batch_of(source),
                "step": list(stride),
                "rows": [[-(-(size[0] - a) // stride[0]), 0, planes] for a, _ in phases],
                "columns": [[-(-(size[1] - b) // stride[1]), 0, planes] for _, b in phases],
            }

        self.draft("copy", [source], list(targets), fields).slabs = True

    def taps(
        self,
        sources: list[PlaneView],
        shifts: list[tuple[int, Pair]],
        target: PlaneView,
        weights: Weights,
        residual: PlaneView | None,
        integers: Integers | None = None,
    ) -> None:
        """A weighted sum of shifted planes; `sources` are the phases that `shifts` name. With `integers` the sum is one
        of bytes."""
        node, grid = self.node, target.grid
        # rows that fill up the last block read zeros and are stored where nobody reads
        uneven = len(weights.matrix) % (TILE if integers else MAX_ROWS) != 0
        spill = (self.zeros(target, "spill"),) if uneven else ()
        zero = (self.zeros(target, "zero"),) if uneven and residual else ()
        token = [integers.token] if integers and integers.token else []
        touched = [*sources, *([residual] if residual else []), *token, PlaneView(grid, target.h, target.w, zero)]

        def fields() -> dict[str, Any]:
            pitch = grid.pitch
            return {
                "planes": [runs(s.offsets()) for s in sources],
                "shifts": [[phase, dy * pitch + dx] for phase, (dy, dx) in shifts],
                "out": target.offsets(),
                "residual": residual.offsets() if residual else [],
                "spill": spill[0][0].offset(0) if spill else -1,
                "zero": zero[0][0].offset(0) if zero else -1,
                **position_fields(target),
                **(integers.fields if integers else epilogue_fields(node)),
                **({"token": token[0].offsets()[0]} if token else {}),
            }

        if any(dy for _, (dy, _) in shifts):
            for source in sources:
                self.halo(source)
        to: list[View] = [target, PlaneView(grid, target.h, target.w, spill)]
        arrays = {**self.slope(node), **(integers.arrays if integers else {})}
        made = self.draft("quad_taps" if integers else "taps", touched, to, fields, **arrays)
        made.weights, made.slabs = weights, True
        if any(shift != (0, 0) for _, shift in shifts) or any((s.h, s.w) != (target.h, target.w) for s in sources):
            made.padded = sources

    # ---- PyTorch segments ----

    def to_torch(self, node: Node) -> None:
        """Leave a node to PyTorch."""
        reads: dict[str, int] = {}
        for name in node.inputs:
            if name not in self.in_torch:
                reads[name] = self._export(name)
        self._close_native()
        self.in_torch.add(node.name)
        self.calls.append(TorchCall(node.name, node["target"], node["args"], node["kwargs"], reads))

    def _export(self, name: str) -> int:
        """The external buffer that holds a value, copied there if it lies in the arena."""
        view = self.view(name)
        if isinstance(view, External) and self.externals[view.buffer].shape == self.shapes[name]:
            return view.buffer
        if ("export", name) not in self.cache:
            target = self.external(name, self.shapes[name])
            if isinstance(view, PlaneView) and len(self.shapes[name]) < 4:
                self.planes_to_rows(view, target)
            else:
                self.copy(view, External(target.buffer, view.shape) if isinstance(view, RowsView) else target)
            self.cache["export", name] = target.buffer
        return self.cache["export", name]  # type: ignore[no-any-return]

    def _give_buffer(self, name: str, view: View) -> None:
        assert isinstance(view, External)
        for i, segment in enumerate([*self.segments, Segment(calls=tuple(self.calls))]):
            calls = tuple(_writing(c, view.buffer) if c.name == name else c for c in segment.calls)
            if i < len(self.segments):
                self.segments[i] = Segment(segment.begin, segment.end, calls)
            else:
                self.calls = list(calls)

    def _close_torch(self) -> None:
        if self.calls:
            self.segments.append(Segment(calls=tuple(self.calls)))
            self.calls = []

    def _replace(self, steps: Sequence[Sequence[Draft]]) -> None:
        """Put some steps, or none, in the place of each."""
        moved = [0, *accumulate(map(len, steps))]
        self.drafts = list(chain.from_iterable(steps))
        self.segments = [replace(s, begin=moved[s.begin], end=moved[s.end]) for s in self.segments]

    def _close_native(self) -> None:
        begin = max((s.end for s in self.segments), default=0)
        if len(self.drafts) > begin:
            self.segments.append(Segment(begin, len(self.drafts)))


def _keep_whole(views: Iterable[View]) -> None:
    for view in views:
        if isinstance(view, PlaneView):
            view.grid.keep_whole()


def _row_place(rows: View, planes: PlaneView) -> tuple[int, int, int]:
    """Where the first row of features lies, floats from a row to the next, and the buffer."""
    if isinstance(rows, RowsView):
        return rows.storage.base, rows.storage.stride, -1
    assert isinstance(rows, External)
    return 0, len(planes.channels), rows.buffer


def _writing(call: TorchCall, buffer: int) -> TorchCall:
    return TorchCall(call.name, call.target, call.args, call.kwargs, call.reads, buffer)


def rows_beyond(source: PlaneView, h: int) -> int:
    """How far below a source's last row the last of `h` rows of a sum lies; not above it in slabs, whose last row has
    rows below it wherever the image ends. An image in slabs may yet turn out to stay whole."""
    return max(0, h - source.h) if source.grid.slab_rows else h - source.h
