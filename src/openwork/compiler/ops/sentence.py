"""What sentence encoders end with: the mean of the tokens that are words, and vectors of length one.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| word_mean | x [N, S, C], flags [N, S] | least | |
| unit | x [N, C] | least | |

`word_mean` is sum(flags x) / max(sum(flags), least); `unit` is x / max(length of x, least).
"""

import math
from typing import Any

from torch import fx

from ..graph import Graph, Node, Shape
from ..layout import External, Rows, RowsView
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from . import _walk


@captures("aten.div.Tensor", pattern=True)
def capture_word_mean(c: Converter, node: fx.Node) -> Node:
    above, below = arguments(node, None, None)
    total, count = _walk.skip(above), _walk.skip(below)
    count, least = _at_least(count) or (count, -math.inf)
    weighted, words = _summed(total), _summed(count)
    require(weighted is not None and words is not None and _walk.target(weighted) == "aten.mul.Tensor")
    product: Any = weighted
    factors = [_walk.skip(x) for x in product.args[:2]]
    flags = _flags(words)
    hidden = [x for x in factors if _flags(x) is not flags]
    require(flags is not None and len(hidden) == 1 and shape_of(hidden[0]) == shape_of(product))
    require(shape_of(flags) == shape_of(product)[:2] and shape_of(node) == shape_of(total))
    computed(c, hidden[0])
    return c.make(node, "word_mean", [hidden[0], flags], {"least": least})  # type: ignore[list-item]


def _at_least(node: Any) -> tuple[Any, float] | None:
    """What is kept from falling below a number, and the number."""
    if _walk.target(node) not in ("aten.clamp.default", "aten.clamp_min.default"):
        return None
    x, least, *highest = arguments(node, *[None] * len(node.target._schema.arguments))
    return (_walk.skip(x), float(least)) if isinstance(least, int | float) and all(h is None for h in highest) else None


def _summed(node: Any) -> Any:
    """What a sum over the tokens is taken of."""
    if _walk.target(node) != "aten.sum.dim_IntList":
        return None
    x, axes, keep, dtype = arguments(node, None, None, False, None)
    return _walk.skip(x) if list(axes) in ([1], [-2]) and rank(x) == 3 and not keep and dtype is None else None


def _flags(node: Any) -> fx.Node | None:
    """The input [N, S] of whole numbers that floats [N, S, 1 or C] repeat, if they do."""
    seen = []
    while (name := _walk.target(node)) in ("aten._to_copy.default", "aten.unsqueeze.default", "aten.expand.default"):
        seen.append(name)
        if name == "aten.unsqueeze.default":
            require(node.args[1] in (2, -1))
        node = _walk.skip(node.args[0])
    plain = isinstance(node, fx.Node) and node.op == "placeholder" and rank(node) == 2
    return node if plain and "aten.unsqueeze.default" in seen and not node.meta["val"].is_floating_point() else None


@captures("aten.div.Tensor", pattern=True)
def capture_unit(c: Converter, node: fx.Node) -> Node:
    x, below = arguments(node, None, None)
    length = _walk.skip(below)
    if _walk.target(length) == "aten.expand.default":
        length = _walk.skip(length.args[0])
    bounded = _at_least(length)
    require(bounded is not None)
    norm, least = bounded  # type: ignore[misc]
    require(_walk.target(norm) == "aten.linalg_vector_norm.default")
    y, order, axes, keep = arguments(norm, None, 2, None, False)
    require(_walk.skip(y) is _walk.skip(x) and order == 2 and axes is not None and list(axes) in ([1], [-1]) and keep)
    computed(c, x)
    require(rank(x) == 2)
    return c.make(node, "unit", [x], {"least": least})


@implies("word_mean")
def word_mean_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0][0], shapes[0][2]


@implies("unit")
def unit_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("word_mean")
def lower_word_mean(low: Lowering, node: Node) -> None:
    source, flags = low.planes(node.inputs[0]), low.view(node.inputs[1])
    assert isinstance(flags, External)
    n, c = node.shape
    target = RowsView(Rows(n, c), (n, c))

    def fields() -> dict[str, Any]:
        return {
            "x": source.runs(), "batch": n, "length": source.w, "stride": source.grid.stride, "flags": flags.buffer,
            "y": target.storage.base, "y_stride": target.storage.stride, "least": _json(node["least"]),
        }  # fmt: skip

    low.draft("word_mean", [source, flags], [target], fields)
    low.values[node.name] = target


@lowers("unit")
def lower_unit(low: Lowering, node: Node) -> None:
    source = low.rows(node.inputs[0])
    n, c = node.shape
    target = RowsView(Rows(n, c), (n, c))

    def fields() -> dict[str, Any]:
        x, y = source.storage, target.storage
        return {
            "batch": n, "features": c, "x": x.base, "x_stride": x.stride, "y": y.base, "y_stride": y.stride,
            "least": node["least"],
        }  # fmt: skip

    low.draft("unit", [source], [target], fields)
    low.values[node.name] = target


def _json(value: float) -> float | None:
    return None if value == -math.inf else value
