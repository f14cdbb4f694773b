"""Tokens that are the same in every run: a class token, position embeddings. They are written once.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| constant | | | value [1, S, C] |
"""

from typing import Any

import numpy as np
from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import Grid
from ..lowering import Lowering
from ..operators import Converter, implies, lowers, require, shape_of


def constant_tokens(c: Converter, node: fx.Node, shape: Shape) -> str:
    """The name of a node that holds the parameter `node`, broadcast to `shape` [N, S, C]; alike for every sample."""
    value = c.tensor(node)
    wanted = np.broadcast_to(value, shape)
    require(bool((wanted == wanted[:1]).all()))
    name = f"{node.name}.constant.{'x'.join(map(str, shape))}"
    if all(n.name != name for n in c.nodes):
        c.nodes.append(Node(name, "constant", (), shape, {}, {"value": c.keep(name, wanted[:1])}))
    return name


def is_tokens_constant(c: Converter, node: Any) -> bool:
    """Whether an argument is a parameter that can stand for tokens."""
    return c.is_constant(node) and len(shape_of(node)) <= 3


@implies("constant")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (node.shape[0], *graph.constant(node, "value").shape[1:])


@lowers("constant")
def lower(low: Lowering, node: Node) -> None:
    n, length, width = node.shape
    target = low.new_planes(Grid(n), width, 1, length)
    target.channels[0][0].permanent = True

    def fields() -> dict[str, Any]:
        return {"batch": n, "stride": target.grid.stride, "out": target.runs()}

    value = np.ascontiguousarray(low.graph.constant(node, "value")[0].T)
    low.draft("constant", [], [target], fields, value=value)
    low.values[node.name] = target
