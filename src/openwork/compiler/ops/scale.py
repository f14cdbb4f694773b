"""One weight and one bias a channel: batch norm, arithmetic with constants.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| scale | x [N, C, H, W] or [..., C] | | weight [C], bias [C] |
"""

import numpy as np
from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require
from ._affine import channelwise
from ._positions import on_rows, pointwise


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
