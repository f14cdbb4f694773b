"""One weight and one bias a channel: batch norm, arithmetic with constants.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| scale | x [N, C, H, W] or [..., C] | | weight [C], bias [C] |
"""

from typing import Any

import numpy as np
import torch
from torch import fx

from ..graph import Array, Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from ._affine import channelwise
from ._binary import operands
from ._positions import on_rows, pointwise
from .constant import constant_channels


@captures("aten._native_batch_norm_legit_no_training.default")
def batch_norm(c: Converter, node: fx.Node) -> Node:
    x, gamma, beta, mean, var, _, eps = arguments(node, None, None, None, None, None, 0.1, 1e-5)
    computed(c, x)
    require(rank(x) in (2, 4) and c.is_constant(mean) and c.is_constant(var))
    inverse = 1 / np.sqrt(c.tensor(var).astype(np.float64) + eps)
    weight = inverse * (1 if gamma is None else c.tensor(gamma).astype(np.float64))
    bias = (0 if beta is None else c.tensor(beta).astype(np.float64)) - c.tensor(mean) * weight
    return c.make(_first_output(node), "scale", [x], weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def _first_output(node: fx.Node) -> fx.Node:
    """The only output of a tuple-valued operator that anyone reads; others need PyTorch."""
    users = list(node.users)
    require(all(u.target.__name__ == "getitem" and u.args[1] == 0 for u in users) and len(users) == 1)  # type: ignore[union-attr]
    return users[0]


@captures("<built-in function getitem>")
def getitem(c: Converter, node: fx.Node) -> str:
    source = node.args[0]
    require(isinstance(source, fx.Node) and str(source.target).startswith("aten._native_batch_norm_legit_no_training"))
    require(any(made.name == node.name for made in c.nodes))
    return node.name


@captures(
    *(f"aten.{name}.{kind}" for name in ("add", "sub", "rsub", "mul", "div") for kind in ("Tensor", "Scalar")),
    "aten.neg.default",
)
def arithmetic(c: Converter, node: fx.Node) -> Node:
    """A value and numbers, one for all channels or one for each."""
    name = str(node.target).split(".")[1]
    a, b, alpha = (node.args[0], -1, 1.0) if name == "neg" else operands(node)
    swapped = not isinstance(a, fx.Node) or c.is_constant(a)
    x: Any
    x, other = (b, a) if swapped else (a, b)
    computed(c, x)
    require(1 <= rank(x) <= 4 and shape_of(x) == shape_of(node) and x.meta["val"].dtype is torch.float32)
    given = constant_channels(c, other, shape_of(x))
    require(given is not None)
    if name == "div" and swapped:
        x, name = c.part(node, "reciprocal", "pointwise", [x], shape_of(node), {"act": ("reciprocal",)}), "mul"
    weight, bias = _weight_and_bias(name, given, alpha, not swapped)  # type: ignore[arg-type]
    require(bool(np.isfinite([weight, bias]).all()))
    return c.make(node, "scale", [x], weight=weight.astype(np.float32), bias=bias.astype(np.float32))


def _weight_and_bias(name: str, given: Array, alpha: float, value_first: bool) -> tuple[Array, Array]:
    """weight * x + bias, which is what an operator makes of x and a constant."""
    none, one = np.zeros_like(given), np.ones_like(given)
    if name in ("mul", "neg"):
        return given, none
    if name == "div":
        with np.errstate(divide="ignore"):
            return 1 / given, none
    if name == "rsub":
        value_first = not value_first
    sign = -1.0 if name in ("sub", "rsub") else 1.0
    # a + sign * alpha * b
    return (one, sign * alpha * given) if value_first else (sign * alpha * one, given)


@implies("scale")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("scale", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    if on_rows(node):
        pointwise(low, node, weight=weight, bias=bias)
    else:
        channelwise(low, node, weight, bias)
