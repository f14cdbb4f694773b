"""Arithmetic between two values: products, quotients, differences, the larger or smaller of two.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| binary | a, b | function: add, sub, mul, div, maximum or minimum | |

`a` has the shape of the result but for channels, `b` may have one pixel or one channel: squeeze-and-excitation
multiplies planes by [N, C, 1, 1] (Hu et al. 2018, arXiv:1709.01507). Sums of values of one shape are add.py's, numbers
and one constant a channel scale.py's.
"""

from typing import Any

import torch
from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from . import _binary
from .constant import constant_channels, constant_like

_FUNCTIONS = {
    "aten.add.Tensor": "add",
    "aten.sub.Tensor": "sub",
    "aten.mul.Tensor": "mul",
    "aten.div.Tensor": "div",
    "aten.maximum.default": "maximum",
    "aten.minimum.default": "minimum",
}


@captures(*_FUNCTIONS)
def capture(c: Converter, node: fx.Node) -> Node:
    a, b, alpha = _binary.operands(node)
    function, whole = _FUNCTIONS[str(node.target)], shape_of(node)
    require(alpha == 1)
    extreme = function in ("maximum", "minimum")
    require(extreme or all(constant_channels(c, x, whole) is None for x in (a, b)))  # else scale.py's
    (first, p), (second, q) = (_operand(c, x, whole) for x in (a, b))
    if _pixels(p) < _pixels(q):  # the first operand is the one that is spread over pixels: a - b = -b + a
        if function == "sub":
            weight = -torch.ones(whole[1 if len(whole) == 4 else -1]).numpy()
            second = c.part(node, "negative", "scale", [second], q, weight=weight, bias=0 * weight)
            function = "add"
        elif function == "div":
            second = c.part(node, "reciprocal", "pointwise", [second], q, {"act": ("reciprocal",)})
            function = "mul"
        first, second, p, q = second, first, q, p
    require(_pixels(p) == _pixels(whole))
    return c.make(node, "binary", [first, second], {"function": function})


def _operand(c: Converter, x: Any, whole: Shape) -> tuple[str, Shape]:
    """The name and shape of an operand that can fill the shape `whole`."""
    if c.is_constant(x):
        require(2 < len(whole) <= 4)
        return constant_like(c, x, whole), whole
    computed(c, x)
    require(x.meta["val"].dtype is torch.float32 and _binary.spreads(shape_of(x), whole))
    return c.name(x), shape_of(x)


def _pixels(shape: Shape) -> int:
    return shape[2] * shape[3] if len(shape) == 4 else shape[1] if len(shape) == 3 else 1


@captures("aten.pow.Tensor_Scalar")
def cube(c: Converter, node: fx.Node) -> Node:
    x, exponent = arguments(node, None, None)
    computed(c, x)
    require(exponent == 3 and 2 <= rank(x) <= 4)
    square = c.part(node, "square", "pointwise", [x], shape_of(x), {"act": ("square",)})
    return c.make(node, "binary", [square, x], {"function": "mul"})


@captures("aten.glu.default")
def glu(c: Converter, node: fx.Node) -> Node:
    """The first half of the channels, times the sigmoid of the second."""
    x, axis = arguments(node, None, -1)
    computed(c, x)
    n, channels, h, w = shape_of(x) if rank(x) == 4 else (0, 0, 0, 0)
    require(rank(x) == 4 and axis % 4 == 1)
    halves = []
    for name, start in (("values", 0), ("gates", channels // 2)):
        attrs = {"start": (start, 0, 0), "stop": (start + channels // 2, h, w), "step": (1, 1, 1)}
        halves.append(c.part(node, name, "slice", [x], (n, channels // 2, h, w), attrs))
    gate = c.part(node, "open", "pointwise", [halves[1]], (n, channels // 2, h, w), {"act": ("sigmoid",)})
    return c.make(node, "binary", [halves[0], gate], {"function": "mul"})


@implies("binary")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    first, second = shapes
    fine = _binary.spreads(second, node.shape) and _binary.spreads(first, node.shape)
    return node.shape if fine and _pixels(first) == _pixels(node.shape) else ()


@lowers("binary", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    _binary.binary(low, node, node["function"])
