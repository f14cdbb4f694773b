"""Activations: a function of every element.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| pointwise | x | act: name and parameters | slope [C], only of leaky_relu without parameters (PReLU) |

`native/src/activations.hpp` lists the functions. `fuse_activation` makes them part of the layer before them.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ..graph import Array, Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, Unsupported, arguments, captures, computed, implies, lowers, rank, require
from . import _walk
from ._positions import pointwise

Act = tuple[Any, ...]

_PLAIN = {
    f"aten.{name}.default": (name,)
    for name in (
        *("sigmoid", "tanh", "silu", "hardswish", "mish"),
        *("exp", "erf", "abs", "square", "sqrt", "rsqrt", "reciprocal"),
    )
}
_POWERS = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}


@captures(*_PLAIN)
def plain(c: Converter, node: fx.Node) -> Node:
    return _made(c, node, _PLAIN[str(node.target)])


@captures("aten.gelu.default")
def gelu(c: Converter, node: fx.Node) -> Node:
    _, approximate = arguments(node, None, "none")
    return _made(c, node, ("gelu",) if approximate == "none" else ("gelu_tanh",))


@captures("aten.leaky_relu.default")
def leaky_relu(c: Converter, node: fx.Node) -> Node:
    return _made(c, node, ("leaky_relu", arguments(node, None, 0.01)[1]))


@captures("aten.prelu.default")
def prelu(c: Converter, node: fx.Node) -> Node:
    x, weight = arguments(node, None, None)
    require(c.is_constant(weight))
    slope = c.tensor(weight)
    if slope.size == 1:
        return _made(c, node, ("leaky_relu", float(slope.item())))
    require(rank(x) == 4)
    return _made(c, node, ("leaky_relu",), slope=slope)


@captures("aten.elu.default")
def elu(c: Converter, node: fx.Node) -> Node:
    return _made(c, node, ("elu", *arguments(node, None, 1.0, 1.0, 1.0)[1:]))


@captures("aten.selu.default")
def selu(c: Converter, node: fx.Node) -> Node:
    return _made(c, node, ("elu", 1.6732632423543772, 1.0507009873554805, 1.0))


@captures("aten.celu.default")
def celu(c: Converter, node: fx.Node) -> Node:
    alpha = arguments(node, None, 1.0)[1]
    return _made(c, node, ("elu", alpha, 1.0, 1 / alpha))


@captures("aten.softplus.default")
def softplus(c: Converter, node: fx.Node) -> Node:
    return _made(c, node, ("softplus", *arguments(node, None, 1.0, 20.0)[1:]))


@captures("aten.pow.Tensor_Scalar")
def power(c: Converter, node: fx.Node) -> Node:
    exponent = arguments(node, None, None)[1]
    require(exponent in _POWERS)
    return _made(c, node, (_POWERS[exponent],))


_SPELLED = {
    f"aten.{name}"
    for name in ("mul.Tensor", "add.Tensor", "sub.Tensor", "div.Tensor", "neg.default", "pow.Tensor_Scalar")
} | {f"aten.{name}.default" for name in ("tanh", "erf", "sigmoid", "exp", "relu6", "hardtanh", "clamp", "softplus")}
_KNOWN: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "hardswish": F.hardswish,
    "mish": F.mish,
}
_STEPS = 12
"""Operators that an activation may be written with."""


@captures("aten.mul.Tensor", "aten.div.Tensor", pattern=True)
def spelled_out(c: Converter, node: fx.Node) -> Node:
    """An activation that is written operator by operator, told from its values: GPT-2's 0.5 x (1 + tanh(...))."""
    order = {n: i for i, n in enumerate(node.graph.nodes)}
    x = node
    frontier: set[fx.Node] = {node}
    for _ in range(_STEPS):
        last = max(frontier, key=order.__getitem__)
        require(_walk.target(last) in _SPELLED and not any(c.is_constant(a) for a in last.all_input_nodes))
        frontier = (frontier - {last}) | set(last.all_input_nodes)
        if len(frontier) != 1:
            continue
        (x,) = frontier
        probes = torch.linspace(-9, 9, 257)
        found = _walk.evaluate(node, lambda n, x=x, probes=probes: probes if n is x else None)  # type: ignore[misc]
        for name, function in _KNOWN.items():
            if torch.allclose(found, function(probes), rtol=1e-5, atol=1e-6):
                return _named(c, node, x, (name,))
    raise Unsupported


def _made(c: Converter, node: fx.Node, act: Act, **constants: Array) -> Node:
    (x,) = arguments(node, None)
    return _named(c, node, x, act, **constants)


def _named(c: Converter, node: fx.Node, x: fx.Node, act: Act, **constants: Array) -> Node:
    computed(c, x)
    require(rank(x) >= 1)
    name, *parameters = act
    return c.make(node, "pointwise", [x], {"act": (name, *map(float, parameters))}, **constants)


@implies("pointwise")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("pointwise")
def lower(low: Lowering, node: Node) -> None:
    pointwise(low, node, **{role: low.graph.constant(node, role) for role in node.constants})
