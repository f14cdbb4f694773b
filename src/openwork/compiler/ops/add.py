"""Sum of two values of one shape; tokens may have parameters added.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| add | a, b [N, C, H, W], [N, S, C] or [N, C] | | |
"""

from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from ._affine import many_tokens
from ._binary import binary
from .constant import constant_like, is_tokens_constant


@captures("aten.add.Tensor")
def capture(c: Converter, node: fx.Node) -> Node:
    a, b, alpha = arguments(node, None, None, 1)
    require(alpha == 1)
    if is_tokens_constant(c, a):
        a, b = b, a
    computed(c, a)
    if many_tokens(shape_of(node)) and is_tokens_constant(c, b) and shape_of(a) == shape_of(node):
        other = constant_like(c, b, shape_of(node))
        return Node(node.name, "add", (c.name(a), other), shape_of(node))
    computed(c, b)
    require(2 <= rank(a) <= 4 and shape_of(a) == shape_of(b))
    return c.make(node, "add", [a, b])


@implies("add")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0] if shapes[0] == shapes[1] else ()


@lowers("add", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    binary(low, node, "add")
