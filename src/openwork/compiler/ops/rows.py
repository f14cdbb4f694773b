"""Rows of features in other groups or in another order: the last axis stays what it is.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| regroup | x [*, F] as [*, F], such as [N, S, F] as [N S, F] | | |
| swap | x [A, B, F] as [B, A, F] | | |
"""

import math
from typing import Any

from torch import fx

from ..drafts import image_fields
from ..graph import Graph, Node, Shape
from ..layout import External, Image, Rows, RowsView
from ..lowering import Lowering
from ..operators import Converter, captures, computed, implies, lowers, rank, require, shape_of
from . import _walk


@captures(
    "aten.view.default",
    "aten.reshape.default",
    "aten._unsafe_view.default",
    "aten.flatten.using_ints",
    "aten.unsqueeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
)
def capture(c: Converter, node: fx.Node) -> Node:
    x = node.args[0]
    native(c, x)
    before, after = shape_of(x), shape_of(node)
    require(1 <= len(before) <= 3 and 1 <= len(after) <= 3 and before[-1] == after[-1])
    return c.make(node, "regroup", [x])  # type: ignore[list-item]


@captures("aten.transpose.int", "aten.permute.default")
def capture_swap(c: Converter, node: fx.Node) -> Node:
    x = _walk.permuted(node, (1, 0, 2))
    require(x is not None)
    native(c, x)
    return c.make(node, "swap", [x])  # type: ignore[list-item]


def native(c: Converter, x: Any) -> None:
    """A tensor that the engine computes: what PyTorch makes, PyTorch may as well regroup."""
    computed(c, x)
    require(rank(x) > 0 and all(made.op != "torch" for made in c.nodes if made.name == c.name(x)))


@implies("regroup")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape | None:
    same = shapes[0][-1] == node.shape[-1] and math.prod(shapes[0]) == math.prod(node.shape)
    return None if same else shapes[0]


@lowers("regroup")
def lower(low: Lowering, node: Node) -> None:
    view = low.view(node.inputs[0])
    if isinstance(view, External):
        low.values[node.name] = External(view.buffer, node.shape)
    elif node.shape == low.shapes[node.inputs[0]]:
        low.values[node.name] = view
    else:
        low.values[node.name] = low.rows(node.inputs[0])


@implies("swap")
def swap_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    a, b, features = shapes[0]
    return b, a, features


@lowers("swap")
def lower_swap(low: Lowering, node: Node) -> None:
    b, a, features = node.shape
    if a == 1 or b == 1:
        return lower(low, node)
    source = low.view(node.inputs[0])
    if not isinstance(source, External):
        source = low.rows(node.inputs[0])
    target = RowsView(Rows(a * b, features), (a * b, features))
    copy_swapped(low, source, target, node.shape)
    low.values[node.name] = target


def copy_swapped(low: Lowering, source: External | RowsView, target: External | RowsView, shape: Shape) -> None:
    """Copy rows [A, B, F] to where [B, A, F], which is `shape`, lies."""
    b, a, features = shape

    def fields() -> dict[str, Any]:
        (x_buffer, x, x_row), (y_buffer, y, y_row) = place(source, features), place(target, features)
        return {
            "x": image_fields(Image(x_buffer, x_row, b * x_row, []), [x]),
            "y": image_fields(Image(y_buffer, a * y_row, y_row, []), [y]),
            "batch": a,
            "step": [1, 1],
            "rows": [[b, 0, 1]],
            "columns": [[features, 0, 1]],
        }

    low.draft("copy", [source], [target], fields)


def place(view: External | RowsView, features: int) -> tuple[int, int, int]:
    """The buffer, where the first row of features lies in it, and floats from a row to the next."""
    if isinstance(view, RowsView):
        return -1, view.storage.base, view.storage.stride
    return view.buffer, 0, features
