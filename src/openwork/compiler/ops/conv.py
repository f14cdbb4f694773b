"""2-D convolution.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| conv | x[, residual] | stride, padding, dilation (pairs); groups; after | weight [O, I/groups, kh, kw], bias [O] |

`padding` counts the zeros before the first row and column; `after`, a pair, those behind the last, if they are others.
"""

from torch import fx

from ..drafts import Weights
from ..graph import Graph, Node, Shape
from ..integers import is_integer
from ..lowering import Lowering
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
from . import _integers as integers
from . import _strided as strided
from ._affine import matrix
from ._taps import over_windows


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
    at = _only_pixel(low, node)
    if is_integer(node):
        if at:
            integers.on_rows(low, node, weight[:, :, at[0], at[1]])
        else:
            integers.convolution(low, node)
        return
    if at:
        matrix(low, node, weight[:, :, at[0], at[1]], bias)
        return
    if depthwise.suits(low, node):
        depthwise.lower(low, node)
        return
    if strided.suits(low, node):
        strided.lower(low, node)
        return
    out = len(weight)
    residual = low.planes(node.inputs[1]) if len(node.inputs) > 1 else None
    weights = Weights(weight.reshape(out, -1), bias, node["groups"], node.shape[0] * node.shape[2] * node.shape[3])
    low.values[node.name] = over_windows(low, node, weights, residual, out)
