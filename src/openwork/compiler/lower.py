"""From graph to program: choose where every value lies, turn every node into native steps, plan the arena.

Steps hold symbolic storage until the plan has placed it; `emit` then writes plain numbers.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..formats.program import Array, ProgramSpec, Segment, Step, TensorSpec, TorchCall, runs
from .graph import Graph, Node
from .layout import External, Grid, Image, Planes, PlaneView, Rows, RowsView, Storage, View
from .plan import plan

Pair = tuple[int, int]
MAX_ROWS = 8  # output rows in the largest register block


@dataclass(eq=False)
class Draft:
    """A step before the plan: what it touches, and how to write it down once everything has a place."""

    op: str
    node: Node
    sources: list[View]
    targets: list[View]
    fields: Callable[[], dict[str, Any]]
    arrays: dict[str, Array] = field(default_factory=dict)
    weights: "Weights | None" = None

    def reads(self) -> set[Storage]:
        """Storage that must still hold its value when this step runs."""
        return set().union(*(view.storages() for view in self.sources))

    def writes(self) -> set[Storage]:
        """Storage that this step fills."""
        return set().union(*(view.storages() for view in self.targets))

    def emit(self) -> Step:
        """The step in plain numbers."""
        return Step(self.op, self.node.source or self.node.name, self.fields(), self.arrays)


@dataclass(frozen=True)
class Weights:
    """What the packer and the tuner need to know of a taps or rows step."""

    matrix: Array
    """[out, in/groups * kernel]."""
    bias: Array
    groups: int
    pixels: int
    """Useful outputs per row: batch x height x width, or batch."""


@dataclass(frozen=True)
class Lowered:
    """A program whose weights are not packed yet, beside the drafts that say how."""

    program: ProgramSpec
    drafts: tuple[Draft, ...]


def lower(graph: Graph) -> Lowered:
    """Lower every node; what has no native form becomes a segment that PyTorch runs."""
    return _Lowering(graph).finish()


class _Lowering:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.users = graph.users()
        self.values: dict[str, View] = {}
        self.shapes = {n.name: n.shape for n in graph}
        self.cache: dict[Any, Any] = {}
        self.drafts: list[Draft] = []
        self.externals: list[TensorSpec] = []
        self.inputs: list[int] = []
        self.segments: list[Segment] = []
        self.calls: list[TorchCall] = []
        self.in_torch: set[str] = set()
        self.node = graph.nodes[0]

    def finish(self) -> Lowered:
        for node in self.graph.nodes:
            self.node = node
            if self.node.op == "torch":
                self._torch(self.node)
            else:
                _LOWER[self.node.op](self, self.node)
        outputs = [self._export(name) for name in self.graph.outputs]
        self._close_torch()
        self._close_native()
        arena = plan(self.drafts)
        steps = tuple(d.emit() for d in self.drafts)
        constants = {
            n.constants[k]: self.graph.constant(n, k) for n in self.graph if n.op == "torch" for k in n.constants
        }
        program = ProgramSpec(
            arena, tuple(self.externals), tuple(self.inputs), tuple(outputs), steps, tuple(self.segments), constants
        )
        return Lowered(program, tuple(self.drafts))

    # ---- values in the layout that an operator wants ----

    def external(self, name: str, shape: tuple[int, ...]) -> External:
        """A new buffer outside the arena."""
        self.externals.append(TensorSpec(name, shape))
        return External(len(self.externals) - 1, shape)

    def view(self, name: str) -> View:
        """A value wherever it lies; one that PyTorch computed arrives in an external buffer."""
        if name not in self.values:
            assert name in self.in_torch, name
            self.values[name] = self.external(name, self.shapes[name])
            self._give_buffer(name, self.values[name])
        return self.values[name]

    def planes(self, name: str) -> PlaneView:
        """A 4-D value as planes, copied there where it lies otherwise."""
        view = self.view(name)
        if isinstance(view, PlaneView):
            return view
        if ("planes", name) not in self.cache:
            n, c, h, w = self.shapes[name]
            target = self.new_planes(Grid(n), c, h, w)
            self.copy(view, target)
            self.cache["planes", name] = target
        return self.cache["planes", name]  # type: ignore[no-any-return]

    def rows(self, name: str) -> RowsView:
        """A value as rows of features: [N, ...] flattened after the batch, or [..., F] by its last axis."""
        view, shape = self.view(name), self.shapes[name]
        if isinstance(view, RowsView):
            return view
        if ("rows", name) not in self.cache:
            batch = shape[0] if len(shape) == 4 else math.prod(shape[:-1])
            target = RowsView(Rows(batch, math.prod(shape) // batch), shape if len(shape) == 4 else (batch, shape[-1]))
            source = External(view.buffer, target.shape) if isinstance(view, External) else view
            self.copy(source, target)
            self.cache["rows", name] = target
        return self.cache["rows", name]  # type: ignore[no-any-return]

    def phases(self, name: str, stride: Pair, wanted: set[Pair]) -> dict[Pair, PlaneView]:
        """Phase (a, b) holds x[:, :, a::sh, b::sw]; all phases of one value share a grid."""
        n, c, h, w = self.shapes[name]
        key = ("phases", name, stride)
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
        if missing:
            self._split(self.view(name), [found[p] for p in missing], missing, stride, (h, w))
        return {phase: found[phase] for phase in wanted}

    def new_planes(self, grid: Grid, channels: int, h: int, w: int) -> PlaneView:
        """Fresh planes on a grid."""
        grid.need(h, w)
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
        size = size or _size(target)

        def fields() -> dict[str, Any]:
            x, y = source.image, target.image
            planes = len(x.offsets)
            return {
                "x": _json(x, [o + origin[0] * x.pitch + origin[1] for o in x.offsets]),
                "y": _json(y, [o + at[0] * y.pitch + at[1] for o in y.offsets]),
                "batch": _batch(source),
                "step": list(step),
                "rows": [[size[0], 0, planes]],
                "columns": [[size[1], 0, planes]],
            }

        self.draft("copy", [source], [target], fields)

    def _split(self, source: View, targets: list[PlaneView], phases: list[Pair], stride: Pair, size: Pair) -> None:
        """Copy some phases of a value in one step."""

        def fields() -> dict[str, Any]:
            x, y = source.image, targets[0].image
            planes = len(x.offsets)
            origins = [o + a * x.pitch + b for a, b in phases for o in x.offsets]
            return {
                "x": _json(x, origins),
                "y": _json(y, [o for t in targets for o in t.offsets()]),
                "batch": _batch(source),
                "step": list(stride),
                "rows": [[-(-(size[0] - a) // stride[0]), 0, planes] for a, _ in phases],
                "columns": [[-(-(size[1] - b) // stride[1]), 0, planes] for _, b in phases],
            }

        self.draft("copy", [source], list(targets), fields)

    def taps(
        self,
        sources: list[PlaneView],
        shifts: list[tuple[int, Pair]],
        target: PlaneView,
        weights: Weights,
        residual: PlaneView | None,
    ) -> None:
        """A weighted sum of shifted planes; `sources` are the phases that `shifts` name."""
        node, grid = self.node, target.grid
        # rows that fill up the last block of up to 8 read zeros and are stored where nobody reads
        uneven = len(target.channels) % MAX_ROWS != 0
        spill = (self.zeros(target, "spill"),) if uneven else ()
        zero = (self.zeros(target, "zero"),) if uneven and residual else ()
        touched = [*sources, *([residual] if residual else []), PlaneView(grid, target.h, target.w, zero)]

        def fields() -> dict[str, Any]:
            pitch = grid.pitch
            return {
                "planes": [runs(s.offsets()) for s in sources],
                "shifts": [[phase, dy * pitch + dx] for phase, (dy, dx) in shifts],
                "out": target.offsets(),
                "residual": residual.offsets() if residual else [],
                "spill": spill[0][0].offset(0) if spill else -1,
                "zero": zero[0][0].offset(0) if zero else -1,
                "grid": [grid.batch, grid.stride, pitch, target.h, target.w],
                **clamp_fields(node),
            }

        made = self.draft("taps", touched, [target, PlaneView(grid, target.h, target.w, spill)], fields)
        made.weights = weights

    # ---- PyTorch segments ----

    def _torch(self, node: Node) -> None:
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
        if isinstance(view, External):
            return view.buffer
        if ("export", name) not in self.cache:
            target = self.external(name, self.shapes[name])
            shaped = External(target.buffer, view.shape) if isinstance(view, RowsView) else target
            self.copy(view, shaped)
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

    def _close_native(self) -> None:
        begin = max((s.end for s in self.segments), default=0)
        if len(self.drafts) > begin:
            self.segments.append(Segment(begin, len(self.drafts)))


def clamp_fields(node: Node) -> dict[str, float | None]:
    """The fused clamp as JSON: no bound is null."""
    return {"lo": None if node.lo == -math.inf else node.lo, "hi": None if node.hi == math.inf else node.hi}


def _writing(call: TorchCall, buffer: int) -> TorchCall:
    return TorchCall(call.name, call.target, call.args, call.kwargs, call.reads, buffer)


def _json(image: Image, offsets: Iterable[int]) -> dict[str, Any]:
    return {"buffer": image.buffer, "pitch": image.pitch, "stride": image.stride, "planes": runs(list(offsets))}


def _size(view: View) -> Pair:
    """Rows and columns of one plane."""
    if isinstance(view, PlaneView):
        return view.h, view.w
    return (view.shape[2], view.shape[3]) if len(view.shape) == 4 else (1, math.prod(view.shape[1:]))


def _batch(view: View) -> int:
    return (
        view.grid.batch
        if isinstance(view, PlaneView)
        else view.storage.batch
        if isinstance(view, RowsView)
        else view.shape[0]
    )


# ---- one function a node kind ----


def _input(low: _Lowering, node: Node) -> None:
    view = low.external(node.name, node.shape)
    low.inputs.append(view.buffer)
    low.values[node.name] = view


def _conv(low: _Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    out, _, *kernel = weight.shape
    stride: Pair = node["stride"]
    # tap (dy, dx) of output (0, 0) reads input row dy*dilation - padding: phase row % stride, row // stride rows down
    steps = [
        [divmod(k * d - p, s) for k in range(size)]
        for size, d, p, s in zip(kernel, node["dilation"], node["padding"], stride, strict=True)
    ]
    taps = [((a, b), (i, j)) for i, a in steps[0] for j, b in steps[1]]
    wanted = {phase for phase, _ in taps}
    views = {(0, 0): low.planes(node.inputs[0])} if stride == (1, 1) else low.phases(node.inputs[0], stride, wanted)
    order = sorted(wanted)
    source = views[order[0]]
    grid, (h, w) = source.grid, node.shape[2:]
    before = tuple(max(0, -min(i for i, _ in axis)) for axis in steps)
    reach = [max(i for i, _ in axis) for axis in steps]
    after = (max(0, reach[0] + h - source.h), max(0, reach[1] + w - source.w))
    grid.need(source.h, source.w, (before[0], before[1]), after)
    residual = low.planes(node.inputs[1]) if len(node.inputs) > 1 else None
    if residual:
        grid.merge(residual.grid)
    target = low.new_planes(grid, out, h, w)
    weights = Weights(weight.reshape(out, -1), bias, node["groups"], node.shape[0] * h * w)
    low.taps([views[p] for p in order], [(order.index(p), shift) for p, shift in taps], target, weights, residual)
    low.values[node.name] = target


def _linear(low: _Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    low.values[node.name] = _matrix(low, node, weight, bias)


def _matrix(low: _Lowering, node: Node, weight: Array, bias: Array) -> RowsView:
    source = low.rows(node.inputs[0])
    batch = source.storage.batch
    target = RowsView(Rows(batch, len(weight)), (batch, len(weight)))

    def fields() -> dict[str, Any]:
        x, y = source.storage, target.storage
        return {
            "batch": batch,
            "x": x.base,
            "x_stride": x.stride,
            "y": y.base,
            "y_stride": y.stride,
            **clamp_fields(node),
        }

    low.draft("rows", [source], [target], fields).weights = Weights(weight, bias, 1, batch)
    return target


def _channelwise(low: _Lowering, node: Node, weight: Array, bias: Array, residual: str | None = None) -> None:
    """y[c] = weight[c] x[c] + bias[c] (+ residual[c]): one tap a plane."""
    source = low.planes(node.inputs[0])
    other = low.planes(residual) if residual else None
    if other:
        source.grid.merge(other.grid)
    target = low.new_planes(source.grid, len(weight), source.h, source.w)
    weights = Weights(
        weight[:, None].astype(np.float32), bias.astype(np.float32), len(weight), node.shape[0] * source.h * source.w
    )
    low.taps([source], [(0, (0, 0))], target, weights, other)
    low.values[node.name] = target


def _scale(low: _Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    if len(node.shape) == 4:
        _channelwise(low, node, weight, bias)
    else:
        low.values[node.name] = _matrix(low, node, np.diag(weight), bias)


def _clamp(low: _Lowering, node: Node) -> None:
    size = node.shape[1 if len(node.shape) == 4 else -1]
    one, none = np.ones(size, np.float32), np.zeros(size, np.float32)
    if len(node.shape) == 4:
        _channelwise(low, node, one, none)
    else:
        low.values[node.name] = _matrix(low, node, np.diag(one), none)


def _add(low: _Lowering, node: Node) -> None:
    size = node.shape[1]
    _channelwise(low, node, np.ones(size, np.float32), np.zeros(size, np.float32), node.inputs[1])


def _pool(low: _Lowering, node: Node) -> None:
    source = low.view(node.inputs[0])
    n, c, h, w = low.shapes[node.inputs[0]]
    target = low.new_planes(Grid(n), c, *node.shape[2:])
    attrs = {k: list(node[k]) for k in ("kernel", "stride", "padding", "dilation")}
    is_max = node.op == "max_pool"
    scales = (
        [np.zeros(0, np.float32)] * 2 if is_max else [_scales(node, axis, size) for axis, size in enumerate((h, w))]
    )

    def fields() -> dict[str, Any]:
        x, y = source.image, target.image
        size = [h, w, *node.shape[2:]]
        return {"max": is_max, "x": _json(x, x.offsets), "y": _json(y, y.offsets), "batch": n, "size": size, **attrs}

    low.draft("pool", [source], [target], fields, scale_y=scales[0], scale_x=scales[1])
    low.values[node.name] = target


def _scales(node: Node, axis: int, size: int) -> Array:
    """One over the number of values that PyTorch averages, along one axis."""
    kernel, stride, padding = (node[k][axis] for k in ("kernel", "stride", "padding"))
    counts = []
    for o in range(node.shape[2 + axis]):
        begin = o * stride - padding
        end = min(begin + kernel, size + padding)
        counts.append(end - begin if node["count_padding"] else min(end, size) - max(begin, 0))
    if node["divisor"] is not None:
        counts = [node["divisor"] if axis == 0 else 1] * len(counts)
    return np.asarray([1 / c for c in counts], np.float32)


def _mean(low: _Lowering, node: Node) -> None:
    source = low.planes(node.inputs[0])
    n, c = node.shape[:2]
    target = RowsView(Rows(n, c), node.shape)

    def fields() -> dict[str, Any]:
        x = source.image
        scale = 1 / (source.h * source.w)
        return {
            "x": _json(x, x.offsets), "batch": n, "y": target.storage.base, "y_stride": target.storage.stride,
            "h": source.h, "w": source.w, "scale": scale,
        }  # fmt: skip

    low.draft("mean", [source], [target], fields)
    low.values[node.name] = target


def _concat(low: _Lowering, node: Node) -> None:
    views = [low.planes(name) for name in node.inputs]
    for view in views[1:]:
        views[0].grid.merge(view.grid)
    channels = tuple(channel for view in views for channel in view.channels)
    low.values[node.name] = PlaneView(views[0].grid, views[0].h, views[0].w, channels)


def _slice(low: _Lowering, node: Node) -> None:
    _, c, h, w = low.shapes[node.inputs[0]]
    start, stop, step = node["start"], node["stop"], node["step"]
    chosen = slice(start[0], stop[0], step[0])
    whole = stop[1:] == (h, w) and all(a < s for a, s in zip(start[1:], step[1:], strict=True))
    if whole and step[1:] == (1, 1):
        view = low.planes(node.inputs[0])
    elif whole and all(
        (size - a + s - 1) // s == -(-size // s) for size, a, s in zip((h, w), start[1:], step[1:], strict=True)
    ):
        phase = (start[1], start[2])
        view = low.phases(node.inputs[0], step[1:], {phase})[phase]
    else:
        view = low.new_planes(Grid(node.shape[0]), c, *node.shape[2:])
        low.copy(low.view(node.inputs[0]), view, origin=start[1:], step=step[1:])
    low.values[node.name] = PlaneView(view.grid, view.h, view.w, view.channels[chosen])


def _pad(low: _Lowering, node: Node) -> None:
    channels, *image = node["amounts"]
    view = low.planes(node.inputs[0])
    if any(any(a) for a in image):
        target = low.new_planes(Grid(node.shape[0]), len(view.channels), *node.shape[2:])
        target.channels[0][0].private = True  # the copy leaves the border as it was: zero
        low.copy(view, target, size=(view.h, view.w), at=(image[0][0], image[1][0]))
        view = target
    zero = low.zeros(view, "zero")
    low.values[node.name] = PlaneView(
        view.grid, view.h, view.w, (zero,) * channels[0] + view.channels + (zero,) * channels[1]
    )


def _flatten(low: _Lowering, node: Node) -> None:
    view = low.view(node.inputs[0])
    if isinstance(view, External):
        low.values[node.name] = External(view.buffer, node.shape)
    else:
        low.values[node.name] = RowsView(low.rows(node.inputs[0]).storage, node.shape)


_LOWER: dict[str, Callable[[_Lowering, Node], None]] = {
    "input": _input,
    "conv": _conv,
    "linear": _linear,
    "scale": _scale,
    "clamp": _clamp,
    "add": _add,
    "max_pool": _pool,
    "avg_pool": _pool,
    "mean": _mean,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "flatten": _flatten,
}
