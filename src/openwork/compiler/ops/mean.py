"""Mean over height and width, kept as 1 x 1.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| mean | x [N, C, H, W] | | |
"""

from typing import Any

from torch import fx

from ..drafts import image_fields
from ..graph import Graph, Node, Shape
from ..layout import Rows, RowsView
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of


@captures("aten.mean.dim")
def capture(c: Converter, node: fx.Node) -> Node:
    x, dims, keep, dtype = arguments(node, None, None, False, None)
    computed(c, x)
    require(rank(x) == 4 and dims is not None and sorted(d % 4 for d in dims) == [2, 3] and dtype is None)
    if keep:
        return c.make(node, "mean", [x])
    return c.make(node, "flatten", [c.part(node, "mean", "mean", [x], (*shape_of(node), 1, 1))])


@implies("mean")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (*shapes[0][:2], 1, 1)


@lowers("mean")
def lower(low: Lowering, node: Node) -> None:
    quads = low.quads.get(node.inputs[0])
    quads = quads if quads and quads.in_order else None
    source = quads.view if quads else low.planes(node.inputs[0])
    n, c = node.shape[:2]
    target = RowsView(Rows(n, c), node.shape)

    def fields() -> dict[str, Any]:
        x = source.image
        scale = (quads.scale if quads else 1) / (source.h * source.w)
        return {
            **({"channels": c, "signed": quads.signed} if quads else {}),
            "x": image_fields(x, x.offsets), "batch": n, "y": target.storage.base, "y_stride": target.storage.stride,
            "h": source.h, "w": source.w, "scale": scale,
        }  # fmt: skip

    draft = low.draft("quad_mean" if quads else "mean", [source], [target], fields)
    draft.slabs = True
    draft.padded = [source]  # sums run along the rows and what is between them
    low.values[node.name] = target
