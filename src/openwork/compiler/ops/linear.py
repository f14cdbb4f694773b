"""Fully connected layer on the last axis.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| linear | x [N, F] or [N, S, F] | | weight [O, I], bias [O] |
"""

from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, layer_constants, lowers, rank, require
from ._affine import matrix


@captures("aten.linear.default")
def capture(c: Converter, node: fx.Node) -> Node:
    x, weight, bias = arguments(node, None, None, None)
    computed(c, x)
    require(rank(x) in (2, 3))
    return c.make(node, "linear", [x], {}, **layer_constants(c, weight, bias))


@implies("linear")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (*shapes[0][:-1], graph.constant(node, "weight").shape[0])


@lowers("linear", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    matrix(low, node, low.graph.constant(node, "weight"), low.graph.constant(node, "bias"))
