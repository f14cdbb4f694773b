"""Another shape for each sample's elements.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| flatten | x [N, F] or [N, C, H, W], to either | | |
"""

import math

from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import External, RowsView
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, shape_of
from .attention import joined_heads


@captures(
    "aten.flatten.using_ints",
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.squeeze.dims",
)
def capture(c: Converter, node: fx.Node) -> Node | str:
    """No change, or heads of attention that are joined; rearrange.py knows the others."""
    (x,) = arguments(node, None)
    computed(c, x)
    if shape_of(x) == shape_of(node):
        return c.name(x)
    return joined_heads(c, node)


@implies("flatten")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    n, *size = shapes[0]
    fits = len(node.shape) in (2, 4) and node.shape[0] == n and math.prod(node.shape[1:]) == math.prod(size)
    return node.shape if fits else (n, math.prod(size))


@lowers("flatten")
def lower(low: Lowering, node: Node) -> None:
    view = low.view(node.inputs[0])
    if isinstance(view, External):
        low.values[node.name] = External(view.buffer, node.shape)
    else:
        low.values[node.name] = RowsView(low.rows(node.inputs[0]).storage, node.shape)
