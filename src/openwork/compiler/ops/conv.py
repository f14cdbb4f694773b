"""2-D convolution.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| conv | x[, residual] | stride, padding, dilation (pairs); groups; after | weight [O, I/groups, kh, kw], bias [O] |

`padding` counts the zeros before the first row and column; `after`, a pair, those behind the last, if they are others.
"""

from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering, Pair, Weights, rows_beyond
from ..operators import (
    Converter,
    arguments,
    captures,
    computed,
    implies,
    layer_constants,
    lowers,
    pair,
    rank,
    require,
    window_size,
)
from . import _depthwise as depthwise
from . import _strided as strided
from ._affine import matrix


@captures("aten.conv2d.default", "aten.conv2d.padding")
def capture(c: Converter, node: fx.Node) -> Node:
    x, weight, bias, stride, padding, dilation, groups = arguments(node, None, None, None, 1, 0, 1, 1)
    computed(c, x)
    require(rank(x) == 4)
    constants = layer_constants(c, weight, bias)
    if isinstance(padding, str):
        kernel = constants["weight"].shape[2:]
        spans = [d * (k - 1) for d, k in zip(pair(dilation), kernel, strict=True)]
        require(padding == "valid" or all(s % 2 == 0 for s in spans))
        padding = [s // 2 if padding == "same" else 0 for s in spans]
    attrs = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": int(groups)}
    return c.make(node, "conv", [x], attrs, **constants)


@implies("conv")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    weight = graph.constant(node, "weight").shape
    n, _, *size = shapes[0]
    padding = node["padding"]
    size = [d + a - p for d, a, p in zip(size, node.attrs.get("after", padding), padding, strict=True)]
    axes = zip(size, weight[2:], node["stride"], padding, node["dilation"], strict=True)
    return (n, weight[0], *(window_size(*axis) for axis in axes))


def _only_pixel(low: Lowering, node: Node) -> tuple[int, ...] | None:
    """The kernel position that reads the one pixel of an image, where this is nothing but a fully connected layer."""
    kernel = low.graph.constant(node, "weight").shape[2:]
    at = tuple(p // d for p, d in zip(node["padding"], node["dilation"], strict=True))
    plain = len(node.inputs) == 1 and node["groups"] == 1 and "slope" not in node.constants
    pixel = low.shapes[node.inputs[0]][2:] == node.shape[2:] == (1, 1)
    reads = all(p % d == 0 and i < k for p, d, i, k in zip(node["padding"], node["dilation"], at, kernel, strict=True))
    return at if plain and pixel and reads else None


@lowers("conv", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    if at := _only_pixel(low, node):
        matrix(low, node, weight[:, :, at[0], at[1]], bias)
        return
    if depthwise.suits(low, node):
        depthwise.lower(low, node)
        return
    if strided.suits(low, node):
        strided.lower(low, node)
        return
    out, _, *kernel = weight.shape
    stride: Pair = node["stride"]
    # tap (dy, dx) of output (0, 0) reads input row dy*dilation - padding: phase row % stride, row // stride rows down
    steps = [
        [divmod(k * d - p, s) for k in range(size)]
        for size, d, p, s in zip(kernel, node["dilation"], node["padding"], stride, strict=True)
    ]
    taps = [((a, b), (i, j)) for i, a in steps[0] for j, b in steps[1]]
    wanted = {phase for phase, _ in taps}
    if stride == (1, 1):
        views = {(0, 0): low.planes(node.inputs[0])}
    else:
        views = low.phases(node.inputs[0], stride, wanted, halo=any(dy for _, (dy, _) in taps))
    order = sorted(wanted)
    source = views[order[0]]
    grid, (h, w) = source.grid, node.shape[2:]
    before = tuple(max(0, -min(i for i, _ in axis)) for axis in steps)
    reach = [max(i for i, _ in axis) for axis in steps]
    after = (max(0, reach[0] + rows_beyond(source, h)), max(0, reach[1] + w - source.w))
    grid.need(source.h, source.w, (before[0], before[1]), after)
    residual = low.planes(node.inputs[1]) if len(node.inputs) > 1 else None
    if residual:
        grid.merge(residual.grid)
    target = low.new_planes(grid, out, h, w)
    weights = Weights(weight.reshape(out, -1), bias, node["groups"], node.shape[0] * h * w)
    low.taps([views[p] for p in order], [(order.index(p), shift) for p, shift in taps], target, weights, residual)
    low.values[node.name] = target
