"""Operators that change nothing in inference; they leave no node behind."""

from torch import fx

from ..operators import Converter, arguments, captures, computed, require


@captures(
    "aten.clone.default",
    "aten.alias.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.lift_fresh_copy.default",
)
def identity(c: Converter, node: fx.Node) -> str:
    (x,) = arguments(node, None)
    computed(c, x)
    return c.name(x)


@captures("aten.dropout.default")
def dropout(c: Converter, node: fx.Node) -> str:
    x, _, train = arguments(node, None, 0.5, False)
    computed(c, x)
    require(not train)
    return c.name(x)
