"""Layer norm over the features of every token.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| layer_norm | x [N, S, C] or [N, C] | eps | weight, bias [C] |
"""

from typing import Any

import numpy as np
from torch import fx

from ..graph import Graph, Node, Shape
from ..integers import Bytes
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from ._positions import on_rows


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
    """Floats for those who read them, and bytes for those who would round them."""
    source = low.planes(node.inputs[0])
    grid, as_floats = _wanted(low, node)
    target = low.new_planes(source.grid, len(source.channels), source.h, source.w) if as_floats else None
    quads = low.new_quads(source, grid) if grid else None

    def fields() -> dict[str, Any]:
        floats = {"y": target.runs()} if target else {}
        rounded = {"quads": quads.view.runs(), **grid.fields} if grid and quads else {}
        return {"x": source.runs(), **floats, **rounded, "eps": node["eps"], "grid": source.positions}

    arrays = {role: low.graph.constant(node, role) for role in ("weight", "bias")}
    made = [view for view in (target, quads and quads.view) if view]
    low.draft("layer_norm", [source], made, fields, **arrays)
    if target:
        low.values[node.name] = target
    if grid and quads:
        low.rounding[node.name, grid] = quads


def _wanted(low: Lowering, node: Node) -> tuple[Bytes | None, bool]:
    """The grid that a reader rounds the result to, if one does, and whether it is read as it is, too."""
    readers = low.users[node.name]
    rounding = [other for other in readers if other.op == "quantize" and not other.act and not on_rows(other)]
    grid = rounding[0]["bytes"] if rounding else None
    served = [other for other in rounding if other["bytes"] == grid]
    return grid, len(served) < len(readers) or node.name in low.graph.outputs
