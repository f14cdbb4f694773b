"""Layer norm over the features of every token.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| layer_norm | x [N, S, C] or [N, C] | eps | weight, bias [C] |
"""

from typing import Any

import numpy as np
from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of


@captures("aten.layer_norm.default")
def capture(c: Converter, node: fx.Node) -> Node:
    x, sizes, weight, bias, eps = arguments(node, None, None, None, None, 1e-5)
    computed(c, x)
    require(rank(x) in (2, 3) and list(sizes) == [shape_of(x)[-1]])
    given = [p for p in (weight, bias) if p is not None]
    require(all(c.is_constant(p) for p in given))
    size = shape_of(x)[-1]
    return c.make(
        node,
        "layer_norm",
        [x],
        {"eps": float(eps)},
        weight=np.ones(size, np.float32) if weight is None else c.tensor(weight),
        bias=np.zeros(size, np.float32) if bias is None else c.tensor(bias),
    )


@implies("layer_norm")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("layer_norm")
def lower(low: Lowering, node: Node) -> None:
    source = low.planes(node.inputs[0])
    target = low.new_planes(source.grid, len(source.channels), source.h, source.w)

    def fields() -> dict[str, Any]:
        return {"x": source.runs(), "y": target.runs(), "eps": node["eps"], "grid": source.positions}

    arrays = {role: low.graph.constant(node, role) for role in ("weight", "bias")}
    low.draft("layer_norm", [source], [target], fields, **arrays)
    low.values[node.name] = target
