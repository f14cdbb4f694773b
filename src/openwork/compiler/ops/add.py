"""Sum of two values of one shape; tokens may have parameters added.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| add | a, b [N, C, H, W], [N, S, C] or [N, C] | | |
"""

from typing import Any

from torch import fx

from ..drafts import position_fields
from ..graph import Graph, Node, Shape
from ..integers import Bytes
from ..layout import Quads
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
    if "bytes" not in node.attrs:
        binary(low, node, "add")
        return
    found = node["bytes"]
    a, b = (low.quads.get(name) for name in node.inputs)
    if a and b and a.lanes == b.lanes and len(a.view.channels) == len(b.view.channels):
        low.quads[node.name] = _of_bytes(low, a, b, found)
    else:
        binary(low, node, "add")
        low.round_own(found)


def _of_bytes(low: Lowering, a: Quads, b: Quads, found: Bytes) -> Quads:
    """The sum of bytes as bytes."""
    a.view.grid.merge(b.view.grid)
    target = low.new_planes(a.view.grid, len(a.view.channels), a.view.h, a.view.w)

    def fields() -> dict[str, Any]:
        return {
            **position_fields(target),
            "a": a.view.runs(),
            "b": b.view.runs(),
            "y": target.runs(),
            "signed_a": a.signed,
            "signed_b": b.signed,
            "scale_a": a.scale / found.scale,
            "scale_b": b.scale / found.scale,
            "lo": found.lo,
            "hi": found.hi,
        }

    low.draft("quad_sum", [a.view, b.view], [target], fields).slabs = True
    return Quads(target, a.lanes, found.scale, found.signed)
