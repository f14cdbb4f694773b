"""From images to tokens, from tokens to one of them, or to some of their features.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| tokens | x [N, C, H, W] | | |
| token | x [N, S, C] | index | |
| features | x [N, S, *], as many as the shape says | first | |
| join | x, ... [N, S, C], one after the other | | |
"""

from typing import Any

from torch import fx

from ..drafts import image_fields
from ..graph import Graph, Node, Shape
from ..layout import Grid, Image, PlaneView, Rows, RowsView
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from . import _walk


@captures("aten.transpose.int", "aten.permute.default")
def capture(c: Converter, node: fx.Node) -> Node:
    """[N, C, H, W] flattened to [N, C, H W], then turned: H W tokens."""
    flat = _walk.permuted(node, (0, 2, 1))
    require(flat is not None)
    image = _walk.reshaped(flat)
    require(image is not None and rank(image) == 4 and shape_of(image)[:2] == shape_of(flat)[:2])
    computed(c, image)
    return c.make(node, "tokens", [image])  # type: ignore[list-item]


@implies("tokens")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    n, c, h, w = shapes[0]
    return n, h * w, c


@lowers("tokens")
def lower(low: Lowering, node: Node) -> None:
    """Rows follow each other without padding between them: a copy, since convolutions pad."""
    source, (n, c, h, w) = low.planes(node.inputs[0]), low.shapes[node.inputs[0]]
    target = low.new_planes(Grid(n), c, 1, h * w)

    def fields() -> dict[str, Any]:
        x, y = source.image, target.image
        return {
            "x": image_fields(x, x.offsets),
            "y": image_fields(Image(-1, w, y.stride, []), y.offsets),
            "batch": n,
            "step": [1, 1],
            "rows": [[h, 0, c]],
            "columns": [[w, 0, c]],
        }

    low.draft("copy", [source], [target], fields)
    low.values[node.name] = target


@captures("aten.select.int")
def capture_token(c: Converter, node: fx.Node) -> Node:
    x, axis, index = arguments(node, None, 0, 0)
    computed(c, x)
    require(rank(x) == 3 and axis % 3 == 1)
    return c.make(node, "token", [x], {"index": int(index) % shape_of(x)[1]})


@implies("token")
def token_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0][0], shapes[0][2]


@lowers("token")
def lower_token(low: Lowering, node: Node) -> None:
    source, (n, c) = low.planes(node.inputs[0]), node.shape
    target = RowsView(Rows(n, c), (n, c))

    def fields() -> dict[str, Any]:
        x = source.image
        return {
            "x": image_fields(x, [o + node["index"] for o in x.offsets]),
            "y": image_fields(Image(-1, 1, target.storage.stride, []), [target.storage.base + i for i in range(c)]),
            "batch": n,
            "step": [1, 1],
            "rows": [[1, 0, c]],
            "columns": [[1, 0, c]],
        }

    low.draft("copy", [source], [target], fields)
    low.values[node.name] = target


@implies("join")
def join_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0][0], sum(s[1] for s in shapes), shapes[0][2]


@lowers("join")
def lower_join(low: Lowering, node: Node) -> None:
    n, length, c = node.shape
    target = low.new_planes(Grid(n), c, 1, length)
    begin = 0
    for name in node.inputs:
        view: PlaneView = low.planes(name)
        low.copy(view, target, size=(1, view.w), at=(0, begin))
        begin += view.w
    low.values[node.name] = target


@implies("features")
def features_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    n, s, width = shapes[0]
    return n, s, min(node.shape[2], width - node["first"])


@lowers("features")
def lower_features(low: Lowering, node: Node) -> None:
    """A list of some of the same planes: nothing moves."""
    low.choose(node.inputs[0], range(node["first"], node["first"] + node.shape[2]))


@captures("aten.slice.Tensor", "<built-in function getitem>")
def capture_features(c: Converter, node: fx.Node) -> Node:
    """A piece of tokens that was split off along the features."""
    require(rank(node) == 3)
    piece = _walk.part(node)
    require(piece.tokens is not _walk.skip(node))
    computed(c, piece.tokens)
    return c.make(node, "features", [piece.tokens], {"first": piece.first})
