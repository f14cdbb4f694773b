"""Values whose elements a step treats alike: planes of one grid, or rows as one plane whose images are a row high."""

import math
from typing import Any

import numpy as np

from ...formats.program import Runs, runs
from ..graph import Array, Node
from ..layout import PlaneView, Rows, RowsView
from ..lowering import Lowering
from ._affine import many_tokens

View = PlaneView | RowsView


def on_rows(node: Node) -> bool:
    """Whether a value is kept as rows: features, few tokens, images of one pixel."""
    return node.shape[2:] == (1, 1) if len(node.shape) == 4 else not many_tokens(node.shape)


def rows_like(node: Node, source: RowsView) -> RowsView:
    """New rows for a node, as many as its source has."""
    batch, features = source.storage.batch, source.storage.features
    return RowsView(Rows(batch, features), node.shape if len(node.shape) == 4 else (batch, features))


def places(view: View) -> Runs:
    """Where a value's planes begin."""
    return runs([view.storage.base] if isinstance(view, RowsView) else view.offsets())


def grid_of(view: View) -> list[int]:
    """Batch, stride, pitch, height and width of a value's planes."""
    if isinstance(view, RowsView):
        rows = view.storage
        return [rows.batch, rows.stride, rows.stride, 1, rows.features]
    return view.positions


def act_of(node: Node) -> list[Any]:
    """The activation or clamp of a node as a step's field; no bound is null."""
    if node.clamps:
        return ["clamp", *(None if math.isinf(bound) else bound for bound in (node.lo, node.hi))]
    return list(node.act)


def pointwise(low: Lowering, node: Node, **arrays: Array) -> None:
    """A step that does a node's activation or clamp. Arrays: `slope`; `weight`, `bias` of features, applied first."""
    slope = "slope" in arrays
    source: View = low.planes(node.inputs[0]) if slope or not on_rows(node) else low.rows(node.inputs[0])
    if isinstance(source, RowsView):
        target: View = rows_like(node, source)
        room = source.storage.stride - source.storage.features
        arrays = {role: np.pad(array, (0, room)) for role, array in arrays.items()}
    else:
        target = low.new_planes(source.grid, len(source.channels), source.h, source.w)
    act = {"act": act_of(node)} if not node.plain else {}

    def fields() -> dict[str, Any]:
        return {**act, "x": places(source), "y": places(target), "grid": grid_of(target)}

    low.draft("pointwise", [source], [target], fields, **arrays)
    low.values[node.name] = target
