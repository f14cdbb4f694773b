"""ReLU and its bounded kin: values below `lo` become `lo`, above `hi` become `hi`.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| clamp | x | lo, hi | |
"""

import math

from torch import fx

from ..graph import Graph, Node, Shape
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require
from . import _affine

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


@implies("clamp")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("clamp", clamps=True)
def lower(low: Lowering, node: Node) -> None:
    _affine.scale(low, node, *_affine.ones(node))
