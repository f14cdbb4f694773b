"""Images of another size, each pixel a weighted mean of the four around it.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| bilinear | x [N, C, H, W] | size (pair), corners: whether those of both images meet, factors (pair or None) | |

Without `corners` the images' edges meet: pixel i of the result lies at (i + 1/2) / factor - 1/2, and what lies outside
the image is its border. `factors` are those that the user gave; None: the ratio of the sizes.
"""

from typing import Any

import numpy as np
from torch import fx

from ..drafts import image_fields
from ..graph import Array, Graph, Node, Shape
from ..layout import Grid
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of


@captures("aten.upsample_bilinear2d.vec")
def capture(c: Converter, node: fx.Node) -> Node | str:
    x, size, corners, factors = arguments(node, None, None, False, None)
    computed(c, x)
    require(rank(x) == 4)
    if shape_of(x) == shape_of(node):
        return c.name(x)
    attrs = {"size": shape_of(node)[2:], "corners": bool(corners)}
    return c.make(node, "bilinear", [x], attrs | {"factors": None if size else tuple(map(float, factors))})


@implies("bilinear")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (*shapes[0][:2], *node["size"])


@lowers("bilinear")
def lower(low: Lowering, node: Node) -> None:
    source, (n, c, *before) = low.view(node.inputs[0]), low.shapes[node.inputs[0]]
    after = list(node["size"])
    target = low.new_planes(Grid(n), c, *after)
    factors = node["factors"] or (None, None)
    (row, row_share), (column, column_share) = (
        _places(i, o, node["corners"], factor) for i, o, factor in zip(before, after, factors, strict=True)
    )

    def fields() -> dict[str, Any]:
        x, y = source.image, target.image
        return {"batch": n, "size": [*before, *after], "x": image_fields(x, x.offsets), "y": image_fields(y, y.offsets)}

    arrays = {"row": row, "row_share": row_share, "column": column, "column_share": column_share}
    low.draft("bilinear", [source], [target], fields, **arrays)
    low.values[node.name] = target


def _places(before: int, after: int, corners: bool, factor: float | None) -> tuple[Array, Array]:
    """Along one axis: for each output the first of the two inputs that it lies between, and the share of the second."""
    at = np.arange(after, dtype=np.float64)
    if before == after:
        step = at
    elif corners:
        step = at * ((before - 1) / max(after - 1, 1))
    else:
        step = np.maximum((at + 0.5) * (1 / factor if factor else before / after) - 0.5, 0)
    first = np.minimum(step.astype(np.int32), before - 1)
    return first, np.clip(step - first, 0, 1).astype(np.float32)
