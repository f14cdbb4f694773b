"""Several channels become one larger one, or one becomes several smaller ones.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| interleave | x [N, C, H, W] | factor (pair), index: for each phase of each channel of the result, the channel of x | |
| phases | x [N, C, H, W] | factor (pair), index: for each channel of the result, which phase of which channel of x | |

Phases of a channel count row by row: pixel (i * fy + a, j * fx + b) is pixel (i, j) of phase a * fx + b. Pixel shuffle
and upsampling by repetition are `interleave`; its inverse is `phases`, whose numbers are channel * fy * fx + phase.
"""

from collections.abc import Sequence
from typing import Any

from torch import fx

from ..drafts import Pair, image_fields
from ..graph import Graph, Node, Shape
from ..layout import Grid, PlaneView
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of


@captures("aten.pixel_shuffle.default")
def pixel_shuffle(c: Converter, node: fx.Node) -> Node:
    x, factor = arguments(node, None, None)
    return interleaved(c, node, x, (factor, factor), range(shape_of(x)[1]))


@captures("aten.pixel_unshuffle.default")
def pixel_unshuffle(c: Converter, node: fx.Node) -> Node:
    x, factor = arguments(node, None, None)
    computed(c, x)
    require(rank(x) == 4)
    return c.make(node, "phases", [x], {"factor": (factor, factor), "index": tuple(range(shape_of(node)[1]))})


@captures("aten.upsample_nearest2d.vec", "aten._upsample_nearest_exact2d.vec")
def upsample(c: Converter, node: fx.Node) -> Node | str:
    """Every pixel becomes a block; factors that are no whole numbers are another operator's."""
    (x,) = arguments(node, None)
    computed(c, x)
    (h, w), (h2, w2) = shape_of(x)[2:], shape_of(node)[2:]
    require(h2 % h == w2 % w == 0)
    if (h, w) == (h2, w2):
        return c.name(x)
    phases = (h2 // h) * (w2 // w)
    index = [channel for channel in range(shape_of(x)[1]) for _ in range(phases)]
    return interleaved(c, node, x, (h2 // h, w2 // w), index)


def interleaved(c: Converter, node: fx.Node, x: fx.Node, factor: Pair, index: Sequence[int]) -> Node:
    """The node for an interleaving of x."""
    computed(c, x)
    require(rank(x) == 4 and max(factor) <= 64)
    return c.make(node, "interleave", [x], {"factor": factor, "index": tuple(index)})


@implies("interleave")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    (n, c, h, w), (fy, fx_) = shapes[0], node["factor"]
    fine = all(0 <= i < c for i in node["index"])
    return (n, len(node["index"]) // (fy * fx_) if fine else -1, h * fy, w * fx_)


@lowers("interleave")
def lower(low: Lowering, node: Node) -> None:
    view = low.planes(node.inputs[0])
    phases = view.chosen(node["index"])
    low.values[node.name] = interleave(low, phases, node["factor"], node.shape)


def interleave(low: Lowering, phases: PlaneView, factor: Pair, shape: Shape) -> PlaneView:
    """A step that makes larger planes of smaller ones; `phases` has those of the first channel first."""
    n, c, h, w = shape
    target = low.new_planes(Grid(n), c, h, w)

    def fields() -> dict[str, Any]:
        x, y = phases.image, target.image
        return {
            "batch": n,
            "factor": list(factor),
            "size": [h, w],
            "x": image_fields(x, x.offsets),
            "y": image_fields(y, y.offsets),
        }

    low.draft("interleave", [phases], [target], fields)
    return target


@implies("phases")
def phases_shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    (n, c, h, w), (fy, fx_) = shapes[0], node["factor"]
    fine = h % fy == w % fx_ == 0 and all(0 <= i < c * fy * fx_ for i in node["index"])
    return (n, len(node["index"]) if fine else -1, h // fy, w // fx_)


@lowers("phases")
def lower_phases(low: Lowering, node: Node) -> None:
    fy, fx_ = node["factor"]
    places = [(i // (fy * fx_), divmod(i % (fy * fx_), fx_)) for i in node["index"]]
    found = low.phases(node.inputs[0], (fy, fx_), {phase for _, phase in places})
    first = next(iter(found.values()))
    channels = tuple(found[phase].channels[channel] for channel, phase in places)
    low.values[node.name] = PlaneView(first.grid, first.h, first.w, channels)
