"""Layers that compute with whole numbers: 8-bit values times 8-bit weights, summed exactly.

y = scale[o] * sum + bias[o], scale being the step of the input times that of an output's weights; a residual is added,
and what becomes bytes again is divided by its own step, which is folded into scale and bias.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..drafts import Integers, Weights, epilogue_fields, image_fields
from ..graph import Array, Node
from ..integers import is_integer
from ..layout import QUAD, Grid, PlaneView, Quads, Rows, RowsView
from ..lowering import Lowering
from . import _depthwise as depthwise
from ._affine import many_tokens, rows_fields
from ._taps import over_windows


def convolution(low: Lowering, node: Node) -> None:
    """A convolution of images larger than a pixel, or of several groups."""
    source = low.as_quads(node.inputs[0], node["reads"])
    if _is_depthwise(low, node):
        return _depthwise(low, node, source)
    weight, groups = low.graph.constant(node, "weight"), node["groups"]
    out, each, *_ = weight.shape
    weight = weight.reshape(out, each, -1)
    rows = _rows(node, out)
    if groups > 1 and source.in_order and each % QUAD == out // groups % QUAD == 0:
        matrix = words(weight, range(each), each // QUAD, rows)
    else:
        matrix, groups = words(_ungrouped(weight, groups), source.lanes, len(source.view.channels), rows), 1
    residual, integers = _epilogue(low, node, source, out)
    pixels = node.shape[0] * math.prod(node.shape[2:])
    weights = Weights(matrix, _filled(_bias(low, node), rows), groups, pixels, weight.size)
    planes = rows // QUAD if "bytes" in node.attrs else out
    _store(low, node, over_windows(low, node, weights, residual, planes, source, integers), out)


def linear(low: Lowering, node: Node) -> None:
    """A matrix on every token, or on rows of features."""
    weight = low.graph.constant(node, "weight")
    if not many_tokens(node.shape):
        return on_rows(low, node, weight)
    source = low.tokens.get(node.inputs[0]) or low.as_quads(node.inputs[0], node["reads"])
    out = len(weight)
    rows = _rows(node, out)
    residual, integers = _epilogue(low, node, source, out)
    if residual:
        source.view.grid.merge(residual.grid)
    matrix = words(weight[:, :, None], source.lanes, len(source.view.channels), rows)
    planes = rows // QUAD if "bytes" in node.attrs else out
    target = low.new_planes(source.view.grid, planes, source.view.h, source.view.w)
    weights = Weights(matrix, _filled(_bias(low, node), rows), 1, node.shape[0] * node.shape[1], weight.size)
    low.taps([source.view], [(0, (0, 0))], target, weights, residual, integers)
    _store(low, node, target, out)


def on_rows(low: Lowering, node: Node, weight: Array) -> None:
    """A matrix [out, in] on few rows of features, which the step rounds itself."""
    name, reads = node.inputs[0], node["reads"]
    by_token = low.graph[name].op == "quantize_tokens"
    source = low.rows(low.unrounded.get(name, name))
    rows, (out, features) = source.storage, weight.shape
    target = RowsView(Rows(rows.batch, out), node.shape if len(node.shape) == 4 else (rows.batch, out))

    def fields() -> dict[str, Any]:
        scale = {"by_token": True} if by_token else {"inverse": reads.inverse}
        numbers = {**scale, "x_lo": reads.lo, "x_hi": reads.hi}
        return {**rows_fields(rows, target.storage), "features": features, **numbers, **epilogue_fields(node)}

    scale = (np.float64(reads.scale) * low.graph.constant(node, "step")).astype(np.float32)
    draft = low.draft("quad_rows", [source], [target], fields, scale=scale)
    matrix = words(weight[:, :, None], range(features), -(-features // QUAD), out)
    draft.weights = Weights(matrix, low.graph.constant(node, "bias"), 1, rows.batch, weight.size)
    low.values[node.name] = target


def tokens_are_read(low: Lowering, node: Node) -> tuple[bool, bool]:
    """Whether layers of whole numbers read the tokens that `node` rounds, and whether anybody reads them as floats."""
    readers = low.users[node.name]
    as_bytes = any(is_integer(other) and other.inputs[0] == node.name for other in readers)
    as_floats = any(not is_integer(other) or node.name in other.inputs[1:] for other in readers)
    return as_bytes, as_floats or node.name in low.graph.outputs


def words(weight: NDArray[np.int8], lanes: Any, planes: int, rows: int) -> NDArray[np.int32]:
    """Weights [out, channels, kernel] as words [rows, planes * kernel] of four bytes, that of channel c at lanes[c]."""
    out, _, kernel = weight.shape
    found = np.zeros((rows, planes * QUAD, kernel), np.int8)
    found[:out, list(lanes)] = weight
    bytes_last = found.reshape(rows, planes, QUAD, kernel).transpose(0, 1, 3, 2)
    return np.ascontiguousarray(bytes_last).view(np.int32).reshape(rows, planes * kernel)


def _ungrouped(weight: NDArray[np.int8], groups: int) -> NDArray[np.int8]:
    """Weights [out, in/groups, kernel] over all channels, zero outside their groups."""
    out, each, kernel = weight.shape
    whole = np.zeros((groups, out // groups, groups, each, kernel), np.int8)
    whole[range(groups), :, range(groups)] = weight.reshape(groups, -1, each, kernel)
    return whole.reshape(out, groups * each, kernel)


def _rows(node: Node, out: int) -> int:
    """Rows of weights: whole words where the result is bytes."""
    return -(-out // QUAD) * QUAD if "bytes" in node.attrs else out


def _filled(array: Array, rows: int) -> Array:
    return np.pad(array, (0, rows - len(array)))


def _bias(low: Lowering, node: Node) -> Array:
    """In the units of sums."""
    bias = low.graph.constant(node, "bias").astype(np.float64)
    return (bias * _units(node)).astype(np.float32)


def _units(node: Node) -> float:
    """What sums count instead of a 1: steps of the result where it is bytes, unless an activation is between."""
    return 1 / node["bytes"].scale if "bytes" in node.attrs and not node.act else 1.0


def _scale(low: Lowering, node: Node, source: Quads) -> Array:
    """What each output's sum is multiplied by."""
    step = low.graph.constant(node, "step").astype(np.float64)
    return (source.scale * step * _units(node)).astype(np.float32)


def _epilogue(low: Lowering, node: Node, source: Quads, out: int) -> tuple[PlaneView | None, Integers]:
    """The residual, and what the step says of its own."""
    result, rows = node.attrs.get("bytes"), _rows(node, out)
    residual, kind, residual_scale = _residual(low, node, rows)
    bounds = _byte_fields(node) if result else epilogue_fields(node)
    fields = {"signed": source.signed, "quads_out": result is not None, "residual_kind": kind, **bounds}
    if residual:
        fields["residual_scale"] = float(np.float32(residual_scale * _units(node)))
    return residual, Integers(fields, {"scale": _filled(_scale(low, node, source), rows)}, source.token)


def _byte_fields(node: Node) -> dict[str, Any]:
    """Bounds of a result in bytes, and what comes before these."""
    result = node["bytes"]
    return {"act": list(node.act), **result.fields} if node.act else {"lo": result.lo, "hi": result.hi}


def _residual(low: Lowering, node: Node, rows: int) -> tuple[PlaneView | None, str, float]:
    """Planes of what is added, of which kind they are, and the step of its numbers."""
    if len(node.inputs) == 1:
        return None, "none", 1.0
    quads = low.quads.get(node.inputs[1])
    if quads and quads.in_order and rows % QUAD == 0:
        return quads.view, "s8" if quads.signed else "u8", quads.scale
    planes = low.planes(node.inputs[1])
    zero = (low.zeros(planes, "zero"),) * (rows - len(planes.channels))
    return PlaneView(planes.grid, planes.h, planes.w, planes.channels + zero), "float", 1.0


def _store(low: Lowering, node: Node, target: PlaneView, out: int) -> None:
    """Where the result lies."""
    if "bytes" in node.attrs:
        low.quads[node.name] = Quads(target, tuple(range(out)), node["bytes"].scale, node["bytes"].signed)
    else:
        low.values[node.name] = target


def _is_depthwise(low: Lowering, node: Node) -> bool:
    """Whether the step for a kernel on each plane does it."""
    weight = low.graph.constant(node, "weight")
    return "bytes" in node.attrs and node["groups"] == len(weight) and depthwise.fits(low, node)


def _depthwise(low: Lowering, node: Node, source: Quads) -> None:
    """Every byte of the input's words has a kernel, of zeros where it is no channel: the result's lie likewise."""
    weight, (n, out, h, w) = low.graph.constant(node, "weight"), node.shape
    kernel, lanes = weight.shape[2:], list(source.lanes)
    target = low.new_planes(Grid(n), len(source.view.channels), h, w)
    result = node["bytes"]

    def spread(array: Array) -> Array:
        found = np.zeros((QUAD * len(source.view.channels), *array.shape[1:]), array.dtype)
        found[lanes] = array
        return found

    def fields() -> dict[str, Any]:
        x, y = source.view.image, target.image
        return {
            "x": image_fields(x, x.offsets),
            "y": image_fields(y, y.offsets),
            **depthwise.window_fields(node, kernel, source.view),
            "signed": source.signed,
            "lo": result.lo,
            "hi": result.hi,
        }

    draft = low.draft(
        "quad_depthwise",
        [source.view],
        [target],
        fields,
        weight=spread(weight.reshape(out, *kernel)).reshape(-1),
        scale=spread(_scale(low, node, source)),
        bias=spread(_bias(low, node)),
    )
    draft.slabs = True
    draft.fixed = Weights(weight.reshape(out, -1), low.graph.constant(node, "bias"), out, n * h * w)
    low.quads[node.name] = Quads(target, source.lanes, result.scale, result.signed)
