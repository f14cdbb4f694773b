"""Convolutions with a stride and with few zeros: the dense kernel reads every second pixel where it lies.

Taps, whose lanes run over positions, need what they read split into phases first.
"""

from typing import Any

from ...formats.program import runs
from ..drafts import Weights, epilogue_fields, slab_fields
from ..graph import Node
from ..layout import Grid
from ..lowering import Lowering
from ..pack import union_taps

PANEL = 16
"""Outputs in the dense kernel's smallest panel."""

LEAST_DENSITY = 0.7
"""Share of the taps of blocks of `ROWS` outputs from which skipping the others does not pay for the phases."""

ROWS = 4


def suits(low: Lowering, node: Node) -> bool:
    """Whether a convolution has a stride that the dense kernel takes, outputs for whole panels, and too few zeros."""
    weight = low.graph.constant(node, "weight")
    each = len(weight) // node["groups"]
    return bool(
        node["stride"] != (1, 1)
        and not low.nested
        and node["stride"][1] <= 2
        and (each % PANEL == 0 if node["groups"] > 1 else each >= PANEL)
        and union_taps(weight.reshape(len(weight), -1), ROWS) * ROWS >= LEAST_DENSITY * weight.size
    )


def lower(low: Lowering, node: Node) -> None:
    """A dense step from its input's grid to another one."""
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    stride, before = node["stride"], node["padding"]
    spans = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], node["dilation"], strict=True)]
    source = low.planes(node.inputs[0])
    residual = low.planes(node.inputs[1]) if len(node.inputs) > 1 else None
    n, out, h, w = node.shape
    target = low.new_planes(residual.grid if residual else Grid(n), out, h, w)
    after = [
        max(0, (o - 1) * s + span - b - size)
        for o, s, span, b, size in zip((h, w), stride, spans, before, (source.h, source.w), strict=True)
    ]
    source.grid.need(source.h, source.w, before, (after[0], after[1]))
    low.windows(source, target, stride[0], before[0], spans[0])
    rows, columns = (
        [i * d - b for i in range(k)] for k, d, b in zip(weight.shape[2:], node["dilation"], before, strict=True)
    )

    def fields() -> dict[str, Any]:
        x, y = source.grid, target.grid
        shift = (y.slab_rows * stride[0] - x.slab_rows) * x.pitch if y.slab_rows else 0
        return {
            "planes": [runs(source.offsets())],
            "shifts": [[0, dy * x.pitch + dx] for dy in rows for dx in columns],
            "out": target.offsets(),
            "residual": residual.offsets() if residual else [],
            "grid": target.positions,
            "step": stride[1],
            "x_stride": x.stride,
            "x_pitch": stride[0] * x.pitch,
            "x_shift": shift,
            "x_whole": bool(y.slab_rows and not x.slab_rows),
            **slab_fields(y.slabs),
            **epilogue_fields(node),
        }

    draft = low.draft("dense", [source, *([residual] if residual else [])], [target], fields, **low.slope(node))
    draft.weights = Weights(weight.reshape(out, -1), bias, node["groups"], n * h * w)
    draft.slabs = draft.alike = True
    if before != (0, 0) or any(after):
        draft.padded = [source]
    low.values[node.name] = target
