"""Transposed 2-D convolution.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| conv_transpose | x | stride, padding, extra, dilation (pairs); groups | weight [O, I/groups, kh, kw], bias [O] |

`extra` is PyTorch's output_padding. The weight has the outputs first, as that of a convolution, so that batch norm
folds alike. With stride s, the outputs whose row is a modulo s read the input with one part of the kernel: a phase.
All phases are one step of taps with s * s times the outputs, in which a phase's taps are a sparsity like any other;
then the phases are interleaved (Shi et al. 2016, arXiv:1609.07009).
"""

import math

import numpy as np
from torch import fx

from ..drafts import Weights
from ..graph import Graph, Node, Shape
from ..layout import PlaneView
from ..lowering import Lowering, rows_beyond
from ..operators import (
    Converter,
    arguments,
    captures,
    computed,
    implies,
    layer_constants,
    lowers,
    pair,
    rank,
    require,
)
from .interleave import interleave


@captures("aten.conv_transpose2d.input")
def capture(c: Converter, node: fx.Node) -> Node:
    x, weight, bias, *options = arguments(node, None, None, None, 1, 0, 0, 1, 1)
    computed(c, x)
    require(rank(x) == 4)
    stride, padding, extra, groups, dilation = options
    constants = layer_constants(c, weight, bias)
    into, out, *kernel = constants["weight"].shape
    split = constants["weight"].reshape(groups, into // groups, out, *kernel)
    constants["weight"] = np.ascontiguousarray(split.swapaxes(1, 2)).reshape(groups * out, into // groups, *kernel)
    if bias is None:
        constants["bias"] = np.zeros(groups * out, np.float32)
    attrs = {
        "stride": pair(stride),
        "padding": pair(padding),
        "extra": pair(extra),
        "dilation": pair(dilation),
        "groups": int(groups),
    }
    return c.make(node, "conv_transpose", [x], attrs, **constants)


@implies("conv_transpose")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    weight = graph.constant(node, "weight").shape
    n, _, *size = shapes[0]
    axes = zip(size, weight[2:], *(node[k] for k in ("stride", "padding", "extra", "dilation")), strict=True)
    return (n, weight[0], *((i - 1) * s - 2 * p + d * (k - 1) + e + 1 for i, k, s, p, e, d in axes))


@lowers("conv_transpose", epilogue=True)
def lower(low: Lowering, node: Node) -> None:
    weight, bias = low.graph.constant(node, "weight"), low.graph.constant(node, "bias")
    (out, into, *kernel), groups, stride = weight.shape, node["groups"], node["stride"]
    n, _, height, width = node.shape
    # output row s * t + a reads input row t + shift through kernel row k, where s * shift = a + padding - k * dilation
    rows, columns = (
        [(a, k, (a + p - k * d) // s) for a in range(s) for k in range(size) if (a + p - k * d) % s == 0]
        for size, s, p, d in zip(kernel, stride, node["padding"], node["dilation"], strict=True)
    )
    shifts = sorted({(dy, dx) for _, _, dy in rows for _, _, dx in columns})
    at = {shift: i for i, shift in enumerate(shifts)}
    phases = math.prod(stride)
    matrix = np.zeros((groups, phases, out // groups, into, len(shifts)), np.float32)
    grouped = weight.reshape(groups, out // groups, into, *kernel)
    for a, ky, dy in rows:
        for b, kx, dx in columns:
            matrix[:, a * stride[1] + b, :, :, at[dy, dx]] = grouped[..., ky, kx]
    source = low.planes(node.inputs[0])
    h, w = -(-height // stride[0]), -(-width // stride[1])
    before = (max(0, -min(dy for dy, _ in shifts)), max(0, -min(dx for _, dx in shifts)))
    after = (max(dy for dy, _ in shifts) + rows_beyond(source, h), max(dx for _, dx in shifts) + w - source.w)
    source.grid.need(source.h, source.w, before, (max(0, after[0]), max(0, after[1])))
    target = low.new_planes(source.grid, out * phases, h, w)
    biases = np.repeat(bias.reshape(groups, 1, -1), phases, axis=1).reshape(-1)
    weights = Weights(matrix.reshape(out * phases, -1), biases, groups, n * h * w, weight.size)
    low.taps([source], [(0, shift) for shift in shifts], target, weights, None)
    if phases == 1:
        low.values[node.name] = target
        return
    order = np.arange(out * phases).reshape(groups, phases, -1).swapaxes(1, 2).reshape(-1)
    channels = tuple(target.channels[i] for i in order)
    low.values[node.name] = interleave(low, PlaneView(target.grid, h, w, channels), stride, node.shape)
