"""ReLU and its bounded kin: values below `lo` become `lo`, above `hi` become `hi`.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| clamp | x | lo, hi | |
"""

import math

import numpy as np
from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, channels, computed, implies, lowers, rank, require, shape_of
from ._positions import pointwise

# bounds where the operator's arguments do not say
_DEFAULTS = {
    "aten.relu.default": (0.0, math.inf),
    "aten.relu6.default": (0.0, 6.0),
    "aten.hardtanh.default": (-1.0, 1.0),
    "aten.clamp.default": (-math.inf, math.inf),
}


@captures(*_DEFAULTS)
def capture(c: Converter, node: fx.Node) -> Node:
    x, *given = arguments(node, None, None, None)
    computed(c, x)
    lo, hi = _DEFAULTS[str(node.target)]
    if given:
        lo, hi = (default if bound is None else float(bound) for bound, default in zip(given, (lo, hi), strict=True))
    require(rank(x) >= 1 and lo <= hi and lo < math.inf and hi > -math.inf)
    return c.make(node, "clamp", [x], {"lo": lo, "hi": hi})


@captures("aten.hardsigmoid.default")
def hardsigmoid(c: Converter, node: fx.Node) -> Node:
    (x,) = arguments(node, None)
    computed(c, x)
    weight = np.full(channels(x), 1 / 6, np.float32)
    scaled = c.part(node, "scaled", "scale", [x], shape_of(x), weight=weight, bias=np.full_like(weight, 0.5))
    return c.make(node, "clamp", [scaled], {"lo": 0.0, "hi": 1.0})


@implies("clamp")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("clamp", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    pointwise(low, node)
