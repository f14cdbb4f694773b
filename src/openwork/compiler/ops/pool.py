"""Max and average pooling.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| max_pool | x | kernel, stride, padding, dilation (pairs), ceil | |
| avg_pool | x | as max_pool; count_padding, divisor (None: the window's values) | |
"""

from dataclasses import replace
from typing import Any

import numpy as np
from torch import fx

from ..drafts import image_fields
from ..graph import Array, Graph, Node, Shape
from ..integers import has_pixels
from ..layout import Grid, PlaneView
from ..lowering import Lowering
from ..operators import (
    Converter,
    arguments,
    captures,
    computed,
    implies,
    lowers,
    pair,
    rank,
    require,
    shape_of,
    window_size,
)


@captures("aten.max_pool2d.default")
def max_pool(c: Converter, node: fx.Node) -> Node:
    x, kernel, stride, padding, dilation, ceil = arguments(node, None, None, [], 0, 1, False)
    computed(c, x)
    require(rank(x) == 4)
    return c.make(node, "max_pool", [x], _window(kernel, stride, padding, dilation, ceil))


@captures("aten.avg_pool2d.default")
def avg_pool(c: Converter, node: fx.Node) -> Node:
    x, kernel, stride, padding, ceil, count, divisor = arguments(node, None, None, [], 0, False, True, None)
    computed(c, x)
    require(rank(x) == 4)
    attrs = _window(kernel, stride, padding, 1, ceil) | {"count_padding": bool(count), "divisor": divisor}
    if shape_of(x)[2:] == attrs["kernel"] and attrs["padding"] == (0, 0) and divisor is None:
        return c.make(node, "mean", [x])
    return c.make(node, "avg_pool", [x], attrs)


@captures("aten.adaptive_avg_pool2d.default")
def adaptive_avg_pool(c: Converter, node: fx.Node) -> Node | str:
    x, size = arguments(node, None, None)
    computed(c, x)
    require(rank(x) == 4)
    image, size = shape_of(x)[2:], pair(size)
    if size == (1, 1):
        return c.make(node, "mean", [x])
    if size == image:
        return c.name(x)
    require(all(i % o == 0 for i, o in zip(image, size, strict=True)))
    kernel = [i // o for i, o in zip(image, size, strict=True)]
    return c.make(
        node, "avg_pool", [x], _window(kernel, kernel, 0, 1, False) | {"count_padding": True, "divisor": None}
    )


def _window(kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> dict[str, Any]:
    kernel = pair(kernel)
    return {
        "kernel": kernel,
        "stride": pair(stride) if stride else kernel,
        "padding": pair(padding),
        "dilation": pair(dilation),
        "ceil": bool(ceil),
    }


@implies("max_pool", "avg_pool")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    n, c, *size = shapes[0]
    axes = zip(size, node["kernel"], node["stride"], node["padding"], node["dilation"], strict=True)
    return (n, c, *(window_size(*axis, ceil=node["ceil"]) for axis in axes))


@lowers("max_pool", "avg_pool")
def lower(low: Lowering, node: Node) -> None:
    is_max = node.op == "max_pool"
    quads = low.quads.get(node.inputs[0]) if is_max and has_pixels(node) else None
    source = quads.view if quads else low.view(node.inputs[0])
    n, c, h, w = low.shapes[node.inputs[0]]
    c = len(quads.view.channels) if quads else c
    target = low.new_planes(Grid(n), c, *node.shape[2:])
    if isinstance(source, PlaneView):
        stride, before, kernel, dilation = (node[k][0] for k in ("stride", "padding", "kernel", "dilation"))
        low.windows(source, target, stride, before, (kernel - 1) * dilation + 1)
    attrs = {k: list(node[k]) for k in ("kernel", "stride", "padding", "dilation")}
    none = np.zeros(0, np.float32)
    scales = (none, none) if is_max else (_scales(node, 0, h), _scales(node, 1, w))

    def fields() -> dict[str, Any]:
        x, y = source.image, target.image
        size = [h, w, *node.shape[2:]]
        return {
            **({"signed": quads.signed} if quads else {"max": is_max}),
            "x": image_fields(x, x.offsets),
            "y": image_fields(y, y.offsets),
            "batch": n,
            "size": size,
            **attrs,
        }

    arrays = {} if quads else {"scale_y": scales[0], "scale_x": scales[1]}
    draft = low.draft("quad_pool" if quads else "pool", [source], [target], fields, **arrays)
    draft.slabs = draft.alike = True
    if quads:
        low.quads[node.name] = replace(quads, view=target)
    else:
        low.values[node.name] = target


def _scales(node: Node, axis: int, size: int) -> Array:
    """One over the number of values that PyTorch averages, along one axis."""
    kernel, stride, padding = (node[k][axis] for k in ("kernel", "stride", "padding"))
    counts = []
    for o in range(node.shape[2 + axis]):
        begin = o * stride - padding
        end = min(begin + kernel, size + padding)
        counts.append(end - begin if node["count_padding"] else min(end, size) - max(begin, 0))
    if node["divisor"] is not None:
        counts = [node["divisor"] if axis == 0 else 1] * len(counts)
    return np.asarray([1 / c for c in counts], np.float32)
