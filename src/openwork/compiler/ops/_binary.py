"""A step that combines two values element by element; either may be spread over channels, the second over pixels."""

from typing import Any

from torch import fx

from ..graph import Node, Shape
from ..layout import PlaneView, RowsView, plane_shape
from ..lowering import Lowering
from ..operators import arguments
from ._positions import act_of, grid_of, on_rows, places, rows_like


def operands(node: fx.Node) -> tuple[Any, Any, float]:
    """Both operands of an ATen operator, and what the second is multiplied by."""
    found = arguments(node, *[None] * len(node.target._schema.arguments))  # type: ignore[union-attr]
    alpha = found[2] if len(found) > 2 else None
    return found[0], found[1], 1.0 if alpha is None else float(alpha)


def spreads(shape: Shape, over: Shape) -> bool:
    """Whether a value may be repeated along channels or along all pixels to fill the shape `over`."""
    if len(shape) != len(over) or not 2 <= len(over) <= 4:
        return False
    (n, c, *image), (batch, channels, *whole) = plane_shape(shape), plane_shape(over)
    return n == batch and c in (channels, 1) and image in (whole, [1, 1])


def binary(low: Lowering, node: Node, function: str) -> None:
    """node = function(first input, second input), then its activation or clamp."""
    first, second = node.inputs
    slope = low.slope(node)
    if on_rows(node) and low.shapes[first] == low.shapes[second] and not slope:
        a, b = low.rows(first), low.rows(second)
        return _step(low, node, function, a, b, rows_like(node, a))
    planes = low.planes(first)
    wide = PlaneView(planes.grid, planes.h, planes.w, _spread(planes.channels, node))
    target = low.new_planes(wide.grid, len(wide.channels), wide.h, wide.w)
    if plane_shape(low.shapes[second])[2:] != (wide.h, wide.w):
        return _step(low, node, function, wide, low.rows(second), target, **slope)
    other = low.planes(second)
    wide.grid.merge(other.grid)
    other = PlaneView(other.grid, other.h, other.w, _spread(other.channels, node))
    _step(low, node, function, wide, other, target, **slope)


def _spread(channels: tuple[Any, ...], node: Node) -> tuple[Any, ...]:
    wanted = plane_shape(node.shape)[1]
    return channels if len(channels) == wanted else channels * wanted


def _step(
    low: Lowering,
    node: Node,
    function: str,
    a: PlaneView | RowsView,
    b: PlaneView | RowsView,
    y: PlaneView | RowsView,
    **arrays: Any,
) -> None:
    act = {} if node.plain else {"act": act_of(node)}

    def fields() -> dict[str, Any]:
        operands: dict[str, Any] = {"a": places(a), "b": places(b)}
        if isinstance(b, RowsView) and isinstance(y, PlaneView):  # one number a plane and sample
            step = 0 if b.storage.features == 1 else 1
            operands |= {"b": [[b.storage.base, step, len(y.channels)]], "b_stride": b.storage.stride}
        return {**act, "function": function, **operands, "y": places(y), "grid": grid_of(y)}

    low.draft("binary", [a, b], [y], fields, **arrays)
    low.values[node.name] = y
