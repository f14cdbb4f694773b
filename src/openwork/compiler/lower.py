"""From graph to program: one function for each kind of node says where its value lies and which steps make it."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..formats.program import Array
from .graph import Graph, Node
from .layout import External, Grid, PlaneView, Rows, RowsView
from .lowering import Lowered, Lowering, Pair, Weights, clamp_fields, image_fields


def lower(graph: Graph) -> Lowered:
    """Lower every node; what has no native form becomes a segment that PyTorch runs."""
    low = Lowering(graph)
    for node in graph.nodes:
        low.node = node
        RULES[node.op](low, node)
    return low.finish()


def _input(low: Lowering, node: Node) -> None:
    view = low.external(node.name, node.shape)
    low.inputs.append(view.buffer)
    low.values[node.name] = view


def _conv(low: Lowering, node: Node) -> None:
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


def _linear(low: Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    low.values[node.name] = _matrix(low, node, weight, bias)


def _matrix(low: Lowering, node: Node, weight: Array, bias: Array) -> RowsView:
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


def _channelwise(low: Lowering, node: Node, weight: Array, bias: Array, residual: str | None = None) -> None:
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


def _scale(low: Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    if len(node.shape) == 4:
        _channelwise(low, node, weight, bias)
    else:
        low.values[node.name] = _matrix(low, node, np.diag(weight), bias)


def _clamp(low: Lowering, node: Node) -> None:
    size = node.shape[1 if len(node.shape) == 4 else -1]
    one, none = np.ones(size, np.float32), np.zeros(size, np.float32)
    if len(node.shape) == 4:
        _channelwise(low, node, one, none)
    else:
        low.values[node.name] = _matrix(low, node, np.diag(one), none)


def _add(low: Lowering, node: Node) -> None:
    size = node.shape[1]
    _channelwise(low, node, np.ones(size, np.float32), np.zeros(size, np.float32), node.inputs[1])


def _pool(low: Lowering, node: Node) -> None:
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
        return {
            "max": is_max,
            "x": image_fields(x, x.offsets),
            "y": image_fields(y, y.offsets),
            "batch": n,
            "size": size,
            **attrs,
        }

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


def _mean(low: Lowering, node: Node) -> None:
    source = low.planes(node.inputs[0])
    n, c = node.shape[:2]
    target = RowsView(Rows(n, c), node.shape)

    def fields() -> dict[str, Any]:
        x = source.image
        scale = 1 / (source.h * source.w)
        return {
            "x": image_fields(x, x.offsets), "batch": n, "y": target.storage.base, "y_stride": target.storage.stride,
            "h": source.h, "w": source.w, "scale": scale,
        }  # fmt: skip

    low.draft("mean", [source], [target], fields)
    low.values[node.name] = target


def _concat(low: Lowering, node: Node) -> None:
    views = [low.planes(name) for name in node.inputs]
    for view in views[1:]:
        views[0].grid.merge(view.grid)
    channels = tuple(channel for view in views for channel in view.channels)
    low.values[node.name] = PlaneView(views[0].grid, views[0].h, views[0].w, channels)


def _slice(low: Lowering, node: Node) -> None:
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


def _pad(low: Lowering, node: Node) -> None:
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


def _flatten(low: Lowering, node: Node) -> None:
    view = low.view(node.inputs[0])
    if isinstance(view, External):
        low.values[node.name] = External(view.buffer, node.shape)
    else:
        low.values[node.name] = RowsView(low.rows(node.inputs[0]).storage, node.shape)


RULES: dict[str, Callable[[Lowering, Node], None]] = {
    "torch": Lowering.to_torch,
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
