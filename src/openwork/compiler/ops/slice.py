"""A slice of channels, height and width. Slices of channels move nothing.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| slice | x [N, C, H, W] | start, stop, step: of channels, height, width | |
"""

from dataclasses import replace
from typing import Any

from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import Grid
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from . import _walk

_END = 2**63 - 1


@captures("aten.slice.Tensor")
def capture(c: Converter, node: fx.Node) -> Node | str:
    x, dim, start, stop, step = arguments(node, None, 0, None, None, 1)
    computed(c, x)
    shape = shape_of(x)
    dim %= len(shape)
    start, stop, step = slice(start, None if stop == _END else stop, step).indices(shape[dim])
    if (start, stop, step) == (0, shape[dim], 1):
        return c.name(x)
    require(len(shape) == 4 and dim >= 1 and stop > start)
    return _sliced(c, node, x, dim, start, stop, step)


def _sliced(c: Converter, node: fx.Node, x: fx.Node, dim: int, start: int, stop: int, step: int = 1) -> Node | str:
    """The node for a part of one axis."""
    if shape_of(x) == shape_of(node):
        return c.name(x)
    bounds = [[0, 0, 0], list(shape_of(x)[1:]), [1, 1, 1]]
    for values, value in zip(bounds, (start, stop, step), strict=True):
        values[dim - 1] = value
    return c.make(node, "slice", [x], dict(zip(("start", "stop", "step"), map(tuple, bounds), strict=True)))


@captures("<built-in function getitem>")
def part_of_split(c: Converter, node: fx.Node) -> Node | str:
    pieces: Any = node.args[0]
    which: Any = node.args[1]
    require(_walk.target(pieces) in ("aten.split.Tensor", "aten.split_with_sizes.default", "aten.chunk.default"))
    x, _, dim = arguments(pieces, None, None, 0)
    computed(c, x)
    dim %= rank(x)
    require(rank(x) == 4 and dim >= 1)
    sizes = [piece.shape[dim] for piece in pieces.meta["val"]]
    start = sum(sizes[:which])
    return _sliced(c, node, x, dim, start, start + sizes[which])


@implies("slice")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    parts = zip(node["start"], node["stop"], node["step"], strict=True)
    return (shapes[0][0], *(len(range(*part)) for part in parts))


@lowers("slice")
def lower(low: Lowering, node: Node) -> None:
    _, c, h, w = low.shapes[node.inputs[0]]
    start, stop, step = node["start"], node["stop"], node["step"]
    chosen = range(start[0], stop[0], step[0])
    quads = low.quads.get(node.inputs[0])
    whole = stop[1:] == (h, w) and all(a < s for a, s in zip(start[1:], step[1:], strict=True))
    if whole and step[1:] == (1, 1):
        view = quads.view if quads else low.planes(node.inputs[0])
    elif whole and all(
        (size - a + s - 1) // s == -(-size // s) for size, a, s in zip((h, w), start[1:], step[1:], strict=True)
    ):
        phase = (start[1], start[2])
        view = low.phases(node.inputs[0], step[1:], {phase}, quads=quads)[phase]
    else:
        view = low.new_planes(Grid(node.shape[0]), len(quads.view.channels) if quads else c, *node.shape[2:])
        low.copy(quads.view if quads else low.view(node.inputs[0]), view, origin=start[1:], step=step[1:])
    if quads:
        low.quads[node.name] = replace(quads, view=view).chosen(chosen)
    else:
        low.values[node.name] = view.chosen(chosen)
