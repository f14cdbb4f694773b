"""Zeros around channels, height and width. Zero channels move nothing.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| pad | x [N, C, H, W] | amounts: (before, after) of channels, height, width | |
"""

from dataclasses import replace

from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import QUAD, Grid, PlaneView, Quads, joined_quads
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require


@captures("aten.pad.default")
def pad(c: Converter, node: fx.Node) -> Node | str:
    x, amounts, mode, value = arguments(node, None, None, "constant", None)
    require(mode == "constant")
    return _padded(c, node, x, amounts, value)


@captures("aten.constant_pad_nd.default")
def constant_pad(c: Converter, node: fx.Node) -> Node | str:
    return _padded(c, node, *arguments(node, None, None, 0))


def _padded(c: Converter, node: fx.Node, x: fx.Node, amounts: list[int], value: float | None) -> Node | str:
    computed(c, x)
    require(rank(x) == 4 and not value and len(amounts) <= 6 and min(amounts) >= 0)
    if not any(amounts):
        return c.name(x)
    amounts = [*amounts, *[0] * (6 - len(amounts))]
    return c.make(node, "pad", [x], {"amounts": tuple((amounts[i], amounts[i + 1]) for i in (4, 2, 0))})


@implies("pad")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    n, *size = shapes[0]
    return (n, *(d + a + b for d, (a, b) in zip(size, node["amounts"], strict=True)))


@lowers("pad")
def lower(low: Lowering, node: Node) -> None:
    channels, *image = node["amounts"]
    quads = low.quads.get(node.inputs[0])
    view = quads.view if quads else low.planes(node.inputs[0])
    if any(any(a) for a in image):
        target = low.new_planes(Grid(node.shape[0]), len(view.channels), *node.shape[2:])
        target.channels[0][0].private = True  # the copy leaves the border as it was: zero
        low.copy(view, target, size=(view.h, view.w), at=(image[0][0], image[1][0]))
        view = target
    zero = low.zeros(view, "zero")
    if quads:
        more = [Quads(replace(view, channels=(zero,) * -(-c // QUAD)), tuple(range(c)), quads.scale, quads.signed)
                for c in channels]  # fmt: skip
        low.quads[node.name] = joined_quads([more[0], replace(quads, view=view), more[1]])
        return
    low.values[node.name] = PlaneView(
        view.grid, view.h, view.w, (zero,) * channels[0] + view.channels + (zero,) * channels[1]
    )
