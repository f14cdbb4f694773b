"""Everything but the batch in one axis.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| flatten | x | | |
"""

import math

from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import External, RowsView
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, require, shape_of
from .attention import joined_heads


@captures(
    "aten.flatten.using_ints",
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.squeeze.dims",
)
def capture(c: Converter, node: fx.Node) -> Node | str:
    (x,) = arguments(node, None)
    computed(c, x)
    before, after = shape_of(x), shape_of(node)
    if before == after:
        return c.name(x)
    if joined := joined_heads(c, node):
        return joined
    require(len(after) == 2 and len(before) == 4 and after == (before[0], math.prod(before[1:])))
    return c.make(node, "flatten", [x])


@implies("flatten")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (shapes[0][0], math.prod(shapes[0][1:]))


@lowers("flatten")
def lower(low: Lowering, node: Node) -> None:
    view = low.view(node.inputs[0])
    if isinstance(view, External):
        low.values[node.name] = External(view.buffer, node.shape)
    else:
        low.values[node.name] = RowsView(low.rows(node.inputs[0]).storage, node.shape)
