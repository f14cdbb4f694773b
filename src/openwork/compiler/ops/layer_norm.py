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
from ..layout import Quads
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from ._integers import tokens_are_read
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
    quads = None
    if isinstance(grid, int):
        quads = low.new_tokens(source, low.new_planes(source.grid, 1, source.h, source.w))
    elif grid:
        quads = low.new_quads(source, grid)

    def fields() -> dict[str, Any]:
        floats = {"y": target.runs()} if target else {}
        return {"x": source.runs(), **floats, **_rounded(quads, grid), "eps": node["eps"], "grid": source.positions}

    arrays = {role: low.graph.constant(node, role) for role in ("weight", "bias")}
    made = [view for view in (target, quads and quads.view, quads and quads.token) if view]
    low.draft("layer_norm", [source], made, fields, **arrays)
    if target:
        low.values[node.name] = target
    if grid and quads:
        low.rounding[node.name, grid] = quads


def _rounded(quads: Quads | None, grid: Bytes | int | None) -> dict[str, Any]:
    """Fields that say how bytes are made, if they are."""
    if quads is None:
        return {}
    if isinstance(grid, Bytes):
        return {"quads": quads.view.runs(), **grid.fields}
    assert quads.token and grid
    return {"quads": quads.view.runs(), "token": quads.token.offsets()[0], "lo": -grid, "hi": grid}


def _wanted(low: Lowering, node: Node) -> tuple[Bytes | int | None, bool]:
    """What a reader rounds the result to, if one does, and whether it is read as it is, too: a grid, or of tokens that
    get scales of their own the largest whole number."""
    readers = low.users[node.name]
    found = [rounding for other in readers if (rounding := _rounding(low, other)) is not None]
    grid = found[0] if found else None
    served = [rounding for rounding in found if rounding == grid]
    return grid, len(served) < len(readers) or node.name in low.graph.outputs


def _rounding(low: Lowering, node: Node) -> Bytes | int | None:
    """What a node rounds its input to, if it does nothing else and its readers want bytes."""
    if on_rows(node):
        return None
    if node.op == "quantize_tokens":
        return int(node["most"]) if tokens_are_read(low, node) == (True, False) else None
    return node["bytes"] if node.op == "quantize" and not node.act else None
