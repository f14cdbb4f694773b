"""Channels in another order, some of them, or some several times: a list of the same planes, nothing moves.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| channels | x [N, C, H, W] | index: for each channel of the result, which one of x | |
"""

from collections.abc import Sequence

import numpy as np
from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of


@captures("aten.channel_shuffle.default")
def shuffle(c: Converter, node: fx.Node) -> Node | str:
    x, groups = arguments(node, None, None)
    return chosen(c, node, x, _all(x).reshape(groups, -1).T.reshape(-1).tolist())


@captures("aten.flip.default")
def flip(c: Converter, node: fx.Node) -> Node | str:
    x, dims = arguments(node, None, None)
    require([d % rank(x) for d in dims] == [1])
    return chosen(c, node, x, _all(x)[::-1].tolist())


@captures("aten.roll.default")
def roll(c: Converter, node: fx.Node) -> Node | str:
    x, shifts, dims = arguments(node, None, None, [])
    require([d % rank(x) for d in dims] == [1])
    return chosen(c, node, x, np.roll(_all(x), shifts[0]).tolist())


@captures("aten.repeat.default", "aten.expand.default")
def repeat(c: Converter, node: fx.Node) -> Node | str:
    (x,) = arguments(node, None)
    before, after = shape_of(x), shape_of(node)
    if before == after:
        computed(c, x)
        return c.name(x)
    require(len(before) == len(after) and before[:1] + before[2:] == after[:1] + after[2:])
    return chosen(c, node, x, np.resize(_all(x), after[1]).tolist())


@captures("aten.repeat_interleave.self_int")
def repeat_interleave(c: Converter, node: fx.Node) -> Node | str:
    x, times, dim = arguments(node, None, None, None)
    require(dim is not None and dim % rank(x) == 1)
    return chosen(c, node, x, np.repeat(_all(x), times).tolist())


@captures("aten.index_select.default")
def index_select(c: Converter, node: fx.Node) -> Node | str:
    x, dim, index = arguments(node, None, None, None)
    require(dim % rank(x) == 1 and c.is_constant(index))
    return chosen(c, node, x, c.value(index).tolist())


@captures("aten.index.Tensor")
def index(c: Converter, node: fx.Node) -> Node | str:
    x, indices = arguments(node, None, None)
    require(len(indices) >= 2 and all((i is not None) == (axis == 1) for axis, i in enumerate(indices)))
    require(c.is_constant(indices[1]))
    value = c.value(indices[1])
    require(value.ndim == 1 and not value.is_floating_point() and value.dtype.itemsize > 1)
    return chosen(c, node, x, [int(i) % shape_of(x)[1] for i in value])


def chosen(c: Converter, node: fx.Node, x: fx.Node, index: Sequence[int]) -> Node | str:
    """The node for some channels of x."""
    computed(c, x)
    require(rank(x) == 4)
    if list(index) == list(range(shape_of(x)[1])):
        return c.name(x)
    return c.make(node, "channels", [x], {"index": tuple(index)})


def _all(x: fx.Node) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    require(rank(x) == 4)
    return np.arange(shape_of(x)[1])


@implies("channels")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    n, c, *image = shapes[0]
    return (n, len(node["index"]) if all(0 <= i < c for i in node["index"]) else -1, *image)


@lowers("channels")
def lower(low: Lowering, node: Node) -> None:
    low.choose(node.inputs[0], node["index"])
