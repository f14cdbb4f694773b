"""Tokens that are each rounded by their own largest value, for linear layers that compute with whole numbers.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| quantize_tokens | x [N, S, C] or [N, C] | most | |

y = s * round(x / s), ties to even, s = max(|x| over C) / most for each token: from -most to most times s.
"""

from typing import Any

from torch import fx

from ..graph import Graph, Node, Shape
from ..integers import LARGEST
from ..lowering import Lowering
from ..operators import Converter, captures, computed, implies, lowers, rank, require
from . import _walk
from ._integers import tokens_are_read
from ._positions import on_rows

LEAST = 1e-30
"""What counts as the largest value of a token whose values are all smaller: kLeastToken of the kernels."""


@captures("aten.mul.Tensor", pattern=True)
def capture(c: Converter, node: fx.Node) -> Node:
    """As `openwork.quantization.rows.round_rows` writes it."""
    whole, scale = node.args
    x, inverse = _made_by(_made_by(whole, "aten.round.default")[0], "aten.mul.Tensor")
    require(_made_by(inverse, "aten.reciprocal.default")[0] is scale)
    largest, most = _made_by(scale, "aten.div.Tensor")
    require(most in range(1, LARGEST + 1))
    found, least = _made_by(largest, "aten.clamp.default")
    require(least == LEAST)
    magnitudes, axes, keep = _made_by(found, "aten.amax.default")
    require(list(axes) in ([-1], [rank(x) - 1]) and keep is True and _made_by(magnitudes, "aten.abs.default")[0] is x)
    computed(c, x)
    require(2 <= rank(x) <= 3)
    return c.make(node, "quantize_tokens", [x], {"most": int(most)})


def _made_by(node: Any, target: str) -> tuple[Any, ...]:
    """What the operator `target` made a value of."""
    require(_walk.target(node) == target and not node.kwargs)
    return node.args  # type: ignore[no-any-return]


@implies("quantize_tokens")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return shapes[0]


@lowers("quantize_tokens")
def lower(low: Lowering, node: Node) -> None:
    """Bytes for layers of whole numbers, unless what makes the value has stored them, and floats for other readers;
    few tokens stay as they are, to be rounded by the layers that read them."""
    most, (as_bytes, as_floats) = node["most"], tokens_are_read(low, node)
    if on_rows(node):
        low.unrounded[node.name], as_bytes = node.inputs[0], False
    elif made := low.rounding.get((node.inputs[0], most)):
        low.tokens[node.name], as_bytes = made, False
    if not (as_bytes or as_floats):
        return
    source = low.planes(node.inputs[0])
    token = low.new_planes(source.grid, 1, source.h, source.w)
    quads = low.new_tokens(source, token) if as_bytes else None
    floats = low.new_planes(source.grid, len(source.channels), source.h, source.w) if as_floats else None

    def fields() -> dict[str, Any]:
        targets = {"quads": quads.view if quads else None, "y": floats}
        places = {name: view.runs() for name, view in targets.items() if view}
        grid = {"grid": source.positions, "lo": -most, "hi": most}
        return {"x": source.runs(), **places, "token": token.offsets()[0], **grid}

    made_here = [view for view in (token, quads and quads.view, floats) if view]
    low.draft("quantize_tokens", [source], made_here, fields)
    if quads:
        low.tokens[node.name] = quads
    if floats:
        low.values[node.name] = floats
