"""Rows of a table, one for each token's number; what is added at each position may come along.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| embedding | ids [N, S], whole numbers | | table [V, C], added [S, C] (perhaps) |
"""

from typing import Any

from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import External, Grid
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, implies, lowers, rank, require


@captures("aten.embedding.default")
def capture(c: Converter, node: fx.Node) -> Node:
    table, ids = arguments(node, None, None)
    # from the caller, or from PyTorch: both lie outside the arena
    require(c.is_constant(table) and isinstance(ids, fx.Node) and rank(ids) == 2)
    return c.make(node, "embedding", [ids], {}, table=c.tensor(table))


@implies("embedding")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (*shapes[0], graph.constant(node, "table").shape[1])


@lowers("embedding")
def lower(low: Lowering, node: Node) -> None:
    ids = low.view(node.inputs[0])
    assert isinstance(ids, External)
    n, length, width = node.shape
    target = low.new_planes(Grid(n), width, 1, length)

    def fields() -> dict[str, Any]:
        return {
            "batch": n,
            "length": length,
            "stride": target.grid.stride,
            "ids": ids.buffer,
            "out": target.runs(),
        }

    arrays = {role: low.graph.constant(node, role) for role in node.constants}
    low.draft("embedding", [ids], [target], fields, **arrays)
    low.values[node.name] = target
