"""Scaled dot-product attention over tokens, heads side by side in the features.

| op | inputs | attributes | constants |
| --- | --- | --- | --- |
| attention | q, k, v [N, S, *], flags [N, K] | heads, size, scale, first, on, off | bias [1 or H, K, S] |

`size` is a head's features, `first` where those of q, k and v begin. `flags` says which keys exist: `on` is added to
the scores where it is not zero, `off` where it is; `bias` is added too. How a model computes its mask from `flags` is
not looked at: the mask is computed for some flags, and must be what they say.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from ..graph import Array, Graph, Node, Shape
from ..layout import UNIT, External, PlaneView, round_up
from ..lowering import Lowering
from ..operators import Converter, arguments, captures, computed, implies, lowers, require, shape_of
from . import _walk

_PROBES = 6
"""Random flags that a mask is computed for, beside all and none."""


@captures("aten.scaled_dot_product_attention.default")
def capture(c: Converter, node: fx.Node) -> Node:
    q, k, v, mask, dropout, causal, scale, grouped = arguments(node, None, None, None, None, 0.0, False, None, False)
    require(not dropout and not grouped and len(shape_of(q)) == 4)
    return _attention(c, node, q, k, v, mask, bool(causal), None if scale is None else float(scale))


@captures("aten.matmul.default", pattern=True)
def capture_spelled_out(c: Converter, node: fx.Node) -> Node:
    """softmax(scale (q k^T) + mask) v, operator by operator."""
    weights, v = arguments(node, None, None)
    weights = _walk.skip(weights)
    require(_walk.target(weights) == "aten.softmax.int")
    scores, axis, dtype = arguments(weights, None, None, None)
    require(axis in (-1, 3) and dtype in (None, torch.float32) and len(shape_of(scores)) == 4)
    scores, mask, scale = _walk.skip(scores), None, 1.0
    if _walk.target(scores) == "aten.add.Tensor":
        scores, mask, alpha = arguments(scores, None, None, 1)
        require(alpha == 1)
        scores = _walk.skip(scores)
    while (operator := _walk.target(scores)) in ("aten.mul.Tensor", "aten.div.Tensor"):
        scores, factor = arguments(scores, None, None)
        require(isinstance(factor, int | float) and factor != 0)
        scale *= factor if operator == "aten.mul.Tensor" else 1 / factor
        scores = _walk.skip(scores)
    require(_walk.target(scores) == "aten.matmul.default")
    q, turned = arguments(scores, None, None)
    k = _walk.permuted(turned, (0, 1, 3, 2))
    require(k is not None)
    return _attention(c, node, q, k, v, mask, False, scale)  # type: ignore[arg-type]


def _attention(
    c: Converter, node: fx.Node, q: fx.Node, k: fx.Node, v: fx.Node, mask: Any, causal: bool, scale: float | None
) -> Node:
    (n, h, queries, d), keys = shape_of(q), shape_of(k)[2]
    require(shape_of(k) == (n, h, keys, d) and shape_of(v) == (n, h, keys, d) and d <= 256)
    parts = [_walk.heads(x)[0] for x in (q, k, v)]
    computed(c, *(p.tokens for p in parts))
    flags, attrs, constants = _masked(c, mask, causal, (n, h, queries, keys))
    attrs |= {
        "heads": h,
        "size": d,
        "scale": 1 / math.sqrt(d) if scale is None else scale,
        "first": tuple(p.first for p in parts),
    }
    # The value lies as tokens. Who wants [N, H, S, D] gets it from PyTorch; nearly always the heads are joined again.
    joined = c.make(node, "attention", [*(p.tokens for p in parts), *flags], attrs, **constants)
    joined = Node(tokens_name(node), *_rest(joined, (n, queries, h * d)))
    apart = (n, queries, h, d)
    split = Node(f"{node.name}.split", "torch", (joined.name,), apart, _view(joined.name, list(apart)))
    c.nodes += [joined, split]
    args = {"target": "aten.transpose.int", "args": [{"value": split.name}, 1, 2], "kwargs": {"dict": {}}}
    return Node(node.name, "torch", (split.name,), (n, h, queries, d), args)


def _rest(node: Node, shape: Shape) -> tuple[Any, ...]:
    return node.op, node.inputs, shape, node.attrs, node.constants, node.source


def _view(name: str, shape: list[int]) -> dict[str, Any]:
    return {"target": "aten.reshape.default", "args": [{"value": name}, shape], "kwargs": {"dict": {}}}


def tokens_name(node: fx.Node) -> str:
    """Our name of an attention's value with the heads joined."""
    return f"{node.name}.tokens"


def joined_heads(c: Converter, node: fx.Node) -> str | None:
    """The name of the tokens that a reshape joins from an attention's heads, if it does."""
    before = _walk.reshaped(node)
    attention = _walk.permuted(before, (0, 2, 1, 3)) if before is not None else None
    if attention is None:
        return None
    name = tokens_name(attention)
    return next((n.name for n in c.nodes if n.name == name and n.shape == shape_of(node)), None)


def _masked(
    c: Converter, mask: Any, causal: bool, shape: tuple[int, int, int, int]
) -> tuple[list[fx.Node], dict[str, Any], dict[str, Array]]:
    """The flags that a mask depends on, and what it adds to the scores."""
    _, _, queries, keys = shape
    if mask is None:
        if not causal:
            return [], {}, {}
        allowed = torch.ones(queries, keys, dtype=torch.bool).tril()
        return [], {}, {"bias": _bias(_additive(allowed)[None, None])}
    require(not causal)
    if c.is_constant(mask):
        value = c.value(mask)
        require(2 <= value.ndim <= 4 and (value.ndim < 4 or value.shape[0] == 1))
        heads = value.shape[-3] if value.ndim > 2 else 1
        return [], {}, {"bias": _bias(_additive(value).expand(1, heads, queries, keys))}
    return _flagged(c, mask, shape)


def _flagged(
    c: Converter, mask: fx.Node, shape: tuple[int, int, int, int]
) -> tuple[list[fx.Node], dict[str, Any], dict[str, Array]]:
    """A mask that is computed from one input [N, K] which says what keys exist."""
    n, _, queries, keys = shape
    origins = _walk.sources(mask, lambda x: c.is_constant(x) or x.op == "placeholder")
    flags = [x for x in origins if not c.is_constant(x)]
    require(len(flags) == 1 and shape_of(flags[0]) == (n, keys))
    dtype = flags[0].meta["val"].dtype
    require(not dtype.is_floating_point)

    def of(value: Tensor) -> Tensor:
        given = {flags[0]: value.to(dtype)}
        found = _walk.evaluate(mask, lambda x: given.get(x, c.value(x) if c.is_constant(x) else None))
        return _additive(found).expand(n, -1, queries, keys)

    with torch.no_grad():
        on, off = of(torch.ones(n, keys)), of(torch.zeros(n, keys))
        lowest = off.flatten()[0]
        require(bool((off == lowest).all()) and bool((on == on[:1]).all()))
        for probe in range(_PROBES):
            drawn = torch.rand(n, keys, generator=torch.Generator().manual_seed(probe)) < 0.5
            require(torch.equal(of(drawn), torch.where(drawn[:, None, None, :], on, lowest)))
    if bool((on == on.flatten()[0]).all()):
        return flags, {"on": float(on.flatten()[0]), "off": float(lowest)}, {}
    require(bool(on.max() == 0) and float(lowest) < -1e30)
    return flags, {"on": 0.0, "off": float(lowest)}, {"bias": _bias(on[:1])}


def _additive(mask: Tensor) -> Tensor:
    """What a mask adds to scores: nothing where a truth value allows a key, minus infinity where it does not."""
    if mask.dtype is not torch.bool:
        return mask.float()
    return torch.zeros(mask.shape).masked_fill(~mask, -math.inf)


def _bias(mask: Tensor) -> Array:
    """[1, H, S, K] as [H, K, S], one row a key; heads that are alike are stored once."""
    found = mask[0].transpose(1, 2)
    if bool((found == found[:1]).all()):
        found = found[:1]
    return np.ascontiguousarray(found.numpy().astype(np.float32))


@implies("attention")
def shape(node: Node, shapes: list[Shape], graph: Graph) -> Shape:
    return (*shapes[0][:2], node["heads"] * node["size"])


@lowers("attention")
def lower(low: Lowering, node: Node) -> None:
    width = node["heads"] * node["size"]
    q, k, v = (
        _some(low.planes(name), first, width) for name, first in zip(node.inputs[:3], node["first"], strict=True)
    )
    k.grid.merge(v.grid)
    for view in (q, k, v):  # whole vectors of queries and blocks of keys are read
        view.grid.need(1, view.w, after=(0, 0))
    target = low.new_planes(q.grid, width, 1, q.w)
    flags = low.view(node.inputs[3]) if len(node.inputs) > 3 else None
    assert flags is None or isinstance(flags, External)
    arrays, bias = {}, {}
    if "bias" in node.constants:
        rows = low.graph.constant(node, "bias")
        padded = np.zeros((*rows.shape[:2], round_up(q.w, UNIT)), np.float32)
        padded[..., : q.w] = rows
        arrays = {"bias": padded}
        bias = {"bias_stride": padded.shape[-1], "bias_heads": len(padded)}

    def fields() -> dict[str, Any]:
        masked = {} if flags is None else {"flags": flags.buffer, **_finite(node)}
        return {
            "batch": q.grid.batch, "heads": node["heads"], "queries": q.w, "keys": k.w,
            "q_stride": q.grid.stride, "k_stride": k.grid.stride, "scale": node["scale"],
            **{name: view.runs() for name, view in zip(("q", "k", "v", "out"), (q, k, v, target), strict=True)},
            **masked, **bias,
        }  # fmt: skip

    low.draft("attention", [q, k, v], [target], fields, **arrays)
    low.values[node.name] = target


def _finite(node: Node) -> dict[str, float | None]:
    """`on` and `off` as JSON, which has no word for minus infinity."""
    return {key: None if math.isinf(node[key]) else node[key] for key in ("on", "off")}


def _some(view: PlaneView, first: int, count: int) -> PlaneView:
    return PlaneView(view.grid, view.h, view.w, view.channels[first : first + count])
