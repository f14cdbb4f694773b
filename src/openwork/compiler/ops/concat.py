"""Concatenation along channels: a list of the same planes, nothing moves.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| concat | x, ... [N, C, H, W] | | |
"""

from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import joined, joined_quads
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from .constant import constant_like


@captures("aten.cat.default")
def capture(c: Converter, node: fx.Node) -> Node:
    tensors, dim = arguments(node, None, 0)
    if len(shape_of(node)) == 3 and dim % 3 == 1:
        return _joined(c, node, tensors)
    computed(c, *tensors)
    require(all(rank(t) == 4 for t in tensors) and dim % 4 == 1)
    return c.make(node, "concat", list(tensors))


def _joined(c: Converter, node: fx.Node, tensors: list[fx.Node]) -> Node:
    """Tokens after tokens, a class token before the others."""
    n, _, width = shape_of(node)
    names = [
        constant_like(c, t, (n, shape_of(t)[1], width)) if c.is_constant(t) and rank(t) == 3 else c.name(t)
        for t in tensors
    ]
    computed(c, *(t for t in tensors if not c.is_constant(t)))
    return Node(node.name, "join", tuple(names), shape_of(node))


@implies("concat")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (shapes[0][0], sum(x[1] for x in shapes), *shapes[0][2:])


@lowers("concat")
def lower(low: Lowering, node: Node) -> None:
    quads = [low.quads.get(name) for name in node.inputs]
    found = [q for q in quads if q]
    if len(found) == len(quads) and len({(q.scale, q.signed) for q in found}) == 1:
        low.quads[node.name] = joined_quads(found)
    else:
        low.values[node.name] = joined([low.planes(name) for name in node.inputs])
