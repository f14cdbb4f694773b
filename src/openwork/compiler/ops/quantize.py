"""Values rounded to a grid of 8 bits or fewer: what simulates integers in PyTorch, and what lets the engine use them.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| quantize | x [N, C, H, W], [N, S, C] or [N, C] | bytes: scale, lo, hi; act: of x, before | |

y = scale * clamp(round(x / scale), lo, hi), ties to even. Other operators have the attribute `bytes`, too, if they
round their result. A layer with the attribute `reads`, that of its input, has int8 weights and a constant `step` [O].
"""

import math
from typing import Any

import numpy as np
from torch import fx

from ...engine import _native
from ..drafts import position_fields
from ..graph import Array, Graph, Node, Shape
from ..integers import Bytes
from ..layout import Quads
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require
from . import _walk
from ._positions import on_rows, pointwise


@captures("aten.fake_quantize_per_tensor_affine.default")
def capture(c: Converter, node: fx.Node) -> Node:
    x, scale, zero_point, lo, hi = arguments(node, None, None, None, None, None)
    return _rounded(c, node, x, scale, zero_point, lo, hi)


@captures("aten.fake_quantize_per_tensor_affine.tensor_qparams")
def capture_tensors(c: Converter, node: fx.Node) -> Node:
    x, scale, zero_point, lo, hi = arguments(node, None, None, None, None, None)
    return _rounded(c, node, x, _number(c, scale), _number(c, zero_point), lo, hi)


@captures(*(f"quantized_decomposed.dequantize_per_tensor.{kind}" for kind in ("default", "tensor")))
def capture_pair(c: Converter, node: fx.Node) -> Node:
    """A value that was quantized, with the same parameters, to be dequantized."""
    source = _walk.skip(node.args[0])
    require(_walk.target(source).startswith("quantized_decomposed.quantize_per_tensor."))
    quantized, dequantized = (arguments(n, *[None] * 6) for n in (source, node))
    require(quantized[3:] == dequantized[3:])
    scale, zero_point = (_number(c, value) for value in quantized[1:3])
    require((scale, zero_point) == tuple(_number(c, value) for value in dequantized[1:3]))
    return _rounded(c, node, quantized[0], scale, zero_point, *quantized[3:5])


def _number(c: Converter, value: Any) -> float:
    """A number, or the only element of a constant tensor."""
    if not isinstance(value, fx.Node):
        return float(value)
    require(c.is_constant(value) and c.value(value).numel() == 1)
    return float(c.value(value).item())


def _rounded(c: Converter, node: fx.Node, x: Any, scale: float, zero_point: float, lo: int, hi: int) -> Node:
    """The node, if 8 bits hold the grid and 0 is 0 on it."""
    computed(c, x)
    found = Bytes(float(np.float32(scale)), int(lo), int(hi))
    require(zero_point == 0 and found.fits and 0 < found.scale < math.inf and found.inverse < math.inf)
    require(2 <= rank(x) <= 4)
    return c.make(node, "quantize", [x], {"bytes": found})


@implies("quantize")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("quantize")
def lower(low: Lowering, node: Node) -> None:
    """Bytes, unless what makes the value has stored them; features stay as they are, to be rounded by the layers that
    read them."""
    if made := low.rounding.get((node.inputs[0], node["bytes"])):
        low.quads[node.name] = made
    elif quads := low.quads.get(node.inputs[0]):
        low.quads[node.name] = _looked_up(low, node, quads)
    elif node.act:
        pointwise(low, node)
        low.round_own(node["bytes"])
    elif on_rows(node):
        low.unrounded[node.name] = node.inputs[0]
    else:
        low.quads[node.name] = low.rounded(low.planes(node.inputs[0]), node["bytes"])


def _looked_up(low: Lowering, node: Node, source: Quads) -> Quads:
    """What becomes of bytes, each from a table."""
    found, view = node["bytes"], source.view
    target = low.new_planes(view.grid, len(view.channels), view.h, view.w)

    def fields() -> dict[str, Any]:
        return {**position_fields(target), "x": view.runs(), "y": target.runs()}

    low.draft("quad_table", [view], [target], fields, table=_table(node, source)).slabs = True
    return Quads(target, source.lanes, found.scale, found.signed)


def _table(node: Node, source: Quads) -> Array:
    """The byte that comes of each."""
    found = node["bytes"]
    values = np.arange(256, dtype=np.uint8).view(np.int8 if source.signed else np.uint8) * np.float32(source.scale)
    if node.act:
        name, *parameters = node.act
        _native.activate("reference", name, parameters, values)
    k = np.clip(np.nan_to_num(np.rint(values * np.float32(found.inverse)), nan=found.lo), found.lo, found.hi)
    table: Array = (k.astype(np.int16) & 255).astype(np.uint8)
    return table
