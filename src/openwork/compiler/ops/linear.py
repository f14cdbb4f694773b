"""Fully connected layer on the last axis.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| linear | x [N, F] or [N, S, F] | | weight [O, I], bias [O] |
"""

import numpy as np
from torch import fx

from ..graph import Graph, Node, Shape
from ..integers import is_integer
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, layer_constants, lowers, rank, require
from . import _integers as integers
from ._affine import matrix


@captures("aten.linear.default")
def capture(c: Converter, node: fx.Node) -> Node:
    x, weight, bias = arguments(node, None, None, None)
    computed(c, x)
    require(rank(x) in (2, 3))
    return c.make(node, "linear", [x], {}, **layer_constants(c, weight, bias))


@captures("aten.addmm.default", "aten.mm.default", "aten.matmul.default")
def capture_product(c: Converter, node: fx.Node) -> Node:
    """x @ W, plus a bias; W is [I, O], as GPT-2's Conv1D has it."""
    name = str(node.target)
    bias, x, weight = node.args[:3] if name == "aten.addmm.default" else (None, *node.args[:2])
    computed(c, x)
    require(rank(x) in (2, 3) and c.is_constant(weight) and rank(weight) == 2 and not node.kwargs)
    turned = np.ascontiguousarray(c.tensor(weight).T)  # type: ignore[arg-type]
    shift = np.zeros(len(turned), np.float32)
    if bias is not None:
        require(c.is_constant(bias) and rank(bias) == 1)
        shift = shift + c.tensor(bias)  # type: ignore[arg-type]
    return c.make(node, "linear", [x], {}, weight=turned, bias=shift)  # type: ignore[list-item]


@implies("linear")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (*shapes[0][:-1], graph.constant(node, "weight").shape[0])


@lowers("linear", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    if is_integer(node):
        integers.linear(low, node)
    else:
        matrix(low, node, low.graph.constant(node, "weight"), low.graph.constant(node, "bias"))
