"""Steps that several operators are lowered to: a matrix on rows, and one weight a channel."""

from typing import Any

from ..drafts import Weights, epilogue_fields
from ..graph import Array, Node, Shape
from ..layout import Rows, RowsView
from ..lowering import Lowering

MANY = 8
"""Tokens from which lanes run over tokens rather than over outputs."""


def matrix(low: Lowering, node: Node, weight: Array, bias: Array) -> None:
    """y = weight x + bias; `weight` is [out, in]. Tokens lie as planes, lone rows of features as rows."""
    if many_tokens(node.shape):
        return _over_tokens(low, node, weight, bias)
    source = low.rows(node.inputs[0])
    batch = source.storage.batch
    target = RowsView(Rows(batch, len(weight)), node.shape if len(node.shape) == 4 else (batch, len(weight)))

    def fields() -> dict[str, Any]:
        return {**rows_fields(source.storage, target.storage), **epilogue_fields(node)}

    low.draft("rows", [source], [target], fields).weights = Weights(weight, bias, 1, batch)
    low.values[node.name] = target


def rows_fields(x: Rows, y: Rows) -> dict[str, Any]:
    """Where a step on rows reads and writes."""
    return {"batch": x.batch, "x": x.base, "x_stride": x.stride, "y": y.base, "y_stride": y.stride}


def many_tokens(shape: Shape) -> bool:
    """Whether a value [N, S, C] is worked on as planes, lanes over tokens: a kernel's vector should be filled."""
    return len(shape) == 3 and shape[0] * shape[1] >= MANY


def _over_tokens(low: Lowering, node: Node, weight: Array, bias: Array) -> None:
    """A matrix on every token is a 1 x 1 convolution."""
    source = low.planes(node.inputs[0])
    residual = low.planes(node.inputs[1]) if len(node.inputs) > 1 else None
    if residual:
        source.grid.merge(residual.grid)
    target = low.new_planes(source.grid, len(weight), source.h, source.w)
    low.taps([source], [(0, (0, 0))], target, Weights(weight, bias, 1, node.shape[0] * node.shape[1]), residual)
    low.values[node.name] = target


def channelwise(low: Lowering, node: Node, weight: Array, bias: Array) -> None:
    """y[c] = weight[c] x[c] + bias[c]: one tap a plane."""
    source = low.planes(node.inputs[0])
    target = low.new_planes(source.grid, len(weight), source.h, source.w)
    weights = Weights(weight[:, None], bias, len(weight), node.shape[0] * source.h * source.w)
    low.taps([source], [(0, (0, 0))], target, weights, None)
    low.values[node.name] = target
