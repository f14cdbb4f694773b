"""Values that are the same in every run: a class token, position embeddings, an image. They are written once.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| constant | | | value [1, S, C] or [1, C, H, W] |
"""

from typing import Any

import numpy as np
from torch import fx

from ..graph import Array, Graph, Node, Shape
from ..layout import Grid, plane_shape
from ..lowering import Lowering
from ..operators import Converter, implies, lowers, require, shape_of


def constant_like(c: Converter, node: fx.Node, shape: Shape) -> str:
    """The name of a node that holds the parameter `node`, broadcast to `shape`; alike for every sample."""
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


def constant_channels(c: Converter, operand: Any, shape: Shape) -> Array | None:
    """One number a channel of `shape`, where a number or parameter is just that; float64."""
    axis = 1 if len(shape) == 4 else len(shape) - 1
    if isinstance(operand, int | float):
        return np.full(shape[axis], operand, np.float64)
    if not c.is_constant(operand):
        return None
    given = shape_of(operand)
    aligned = (*[1] * (len(shape) - len(given)), *given)
    if len(aligned) != len(shape) or any(d != 1 for i, d in enumerate(aligned) if i != axis):
        return None
    return np.broadcast_to(c.tensor(operand).astype(np.float64).reshape(-1), (shape[axis],))


@implies("constant")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (node.shape[0], *graph.constant(node, "value").shape[1:])


@lowers("constant")
def lower(low: Lowering, node: Node) -> None:
    n, c, h, w = plane_shape(node.shape)
    target = low.new_planes(Grid(n), c, h, w)
    target.channels[0][0].permanent = True

    def fields() -> dict[str, Any]:
        return {
            "batch": n,
            "stride": target.grid.stride,
            "rows": h,
            "pitch": target.grid.pitch,
            "out": target.runs(),
        }

    value = low.graph.constant(node, "value")[0]
    value = np.ascontiguousarray(value if len(node.shape) == 4 else value.T).reshape(c, h * w)
    low.draft("constant", [], [target], fields, value=value)
    low.values[node.name] = target
