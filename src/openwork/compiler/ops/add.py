"""Sum of two values of one shape.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| add | a, b [N, C, H, W] | lo, hi | |
"""

from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from . import _affine


@captures("aten.add.Tensor")
def capture(c: Converter, node: fx.Node) -> Node:
    a, b, alpha = arguments(node, None, None, 1)
    computed(c, a, b)
    require(alpha == 1 and rank(a) == 4 and shape_of(a) == shape_of(b))
    return c.make(node, "add", [a, b])


@implies("add")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0] if shapes[0] == shapes[1] else ()


@lowers("add", clamps=True)
def lower(low: Lowering, node: Node) -> None:
    _affine.channelwise(low, node, *_affine.ones(node), residual=node.inputs[1])
