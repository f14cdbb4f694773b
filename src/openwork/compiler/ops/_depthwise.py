"""Depthwise convolutions: a kernel for each plane, with a step of their own.

Taps would need one channel's few taps a row, phases of what is read with a stride, and halos of slabs; this step reads
rows where they lie and keeps what it needs of them in the first cache.
"""

from typing import Any

import numpy as np

from ...engine import _native
from ..drafts import Weights, epilogue_fields, image_fields, size_of
from ..graph import Node, Shape
from ..layout import Grid, PlaneView
from ..lowering import Lowering

LEAST_DENSITY = 0.5
"""Share of weights that are not zero below which taps, which skip zeros, do less."""


def suits(low: Lowering, node: Node) -> bool:
    """Whether the step of floats does a convolution."""
    return isinstance(low.view(node.inputs[0]), PlaneView) and not low.nested and fits(low, node)


def fits(low: Lowering, node: Node) -> bool:
    """Whether a convolution has one input plane for each output, and a shape that native steps take."""
    weight = low.graph.constant(node, "weight")
    return bool(
        len(node.inputs) == 1
        and weight.shape[1] == 1
        and node["groups"] > 1
        and max(weight.shape[2:]) <= _native.MAX_DEPTHWISE
        and node["dilation"] == (1, 1)
        and node["stride"] in ((1, 1), (2, 2))
        and np.count_nonzero(weight) >= LEAST_DENSITY * weight.size
    )


def lower(low: Lowering, node: Node) -> None:
    """The step, on a grid of its own."""
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    source = low.planes(node.inputs[0])
    n, out, h, w = node.shape
    target = low.new_planes(Grid(n), out, h, w)
    each = out // node["groups"]

    def fields() -> dict[str, Any]:
        x, y = source.image, target.image
        return {
            "x": image_fields(x, [x.offsets[o // each] for o in range(out)]),
            "y": image_fields(y, y.offsets),
            **window_fields(node, weight.shape[2:], source),
            **epilogue_fields(node),
        }

    draft = low.draft("depthwise", [source], [target], fields, weight=weight.reshape(-1), bias=bias, **low.slope(node))
    draft.slabs = True
    draft.fixed = Weights(weight.reshape(out, -1), bias, node["groups"], n * h * w)
    low.values[node.name] = target


def window_fields(node: Node, kernel: Shape, source: PlaneView) -> dict[str, Any]:
    """Sizes of images and kernels, and how windows lie."""
    return {
        "batch": node.shape[0],
        "size": [*size_of(source), *node.shape[2:]],
        "kernel": list(kernel),
        "stride": node["stride"][0],
        "before": list(node["padding"]),
    }
