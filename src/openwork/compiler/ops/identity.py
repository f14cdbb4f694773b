"""Operators that change nothing in inference; they leave no node behind."""

from torch import fx

from ..operators import Converter, arguments, captures, computed, require, shape_of


@captures(
    "aten.clone.default",
    "aten.alias.default",
    "aten.contiguous.default",
    "aten.detach.default",
    "aten.lift_fresh_copy.default",
    any_type=True,
)
def identity(c: Converter, node: fx.Node) -> str:
    (x,) = arguments(node, None)
    computed(c, x)
    return c.name(x)


@captures(
    *("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.expand.default"),
    *("aten._to_copy.default", "aten.slice.Tensor"),
    any_type=True,
)
def unchanged(c: Converter, node: fx.Node) -> str:
    """The same shape and type: nothing but another name."""
    (x,) = arguments(node, None)
    computed(c, x)
    require(shape_of(x) == shape_of(node) and x.meta["val"].dtype is node.meta["val"].dtype)
    return c.name(x)


@captures("aten.dropout.default")
def dropout(c: Converter, node: fx.Node) -> str:
    x, _, train = arguments(node, None, 0.5, False)
    computed(c, x)
    require(not train)
    return c.name(x)
