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
from ..operators import Converter, arguments, captures, computed, implies, lowers, rank, require, shape_of
from . import _walk

_PROBES = 6
"""Random flags that a mask is computed for, beside all and none."""


@captures("aten.scaled_dot_product_attention.default")
def capture(c: Converter, node: fx.Node) -> Node:
    q, k, v, mask, dropout, causal, scale, grouped = arguments(node, None, None, None, None, 0.0, False, None, False)
    require(not dropout and not grouped and len(shape_of(q)) == 4)
    return _attention(c, node, q, k, v, mask, bool(causal), None if scale is None else float(scale))


@captures("aten.matmul.default", "aten.bmm.default", pattern=True)
def capture_spelled_out(c: Converter, node: fx.Node) -> Node:
    """softmax(scale (q k^T) + mask) v, operator by operator; heads may be joined with the batch."""
    weights, v = arguments(node, None, None)
    weights = _walk.skip(weights)
    require(_walk.target(weights) == "aten.softmax.int")
    scores, axis, dtype = arguments(weights, None, None, None)
    require(dtype in (None, torch.float32) and rank(scores) in (3, 4) and axis % rank(scores) == rank(scores) - 1)
    scores, mask, scale = _walk.skip(scores), None, 1.0
    if _walk.target(scores) == "aten.add.Tensor":
        scores, mask, alpha = arguments(scores, None, None, 1)
        require(alpha == 1)
    scores, factor = _scaled(scores)
    scale *= factor
    if _walk.target(scores) == "aten.baddbmm.default":
        require(mask is None and factor == 1 and not scores.kwargs)
        mask, q, turned = scores.args
    else:
        require(_walk.target(scores) in ("aten.matmul.default", "aten.bmm.default"))
        q, turned = arguments(scores, None, None)
    turned, factor = _scaled(turned)
    scale *= factor
    q, factor = _scaled(q)
    scale *= factor
    k = _walk.permuted(turned, (0, 1, 3, 2) if rank(turned) == 4 else (0, 2, 1))
    require(k is not None)
    return _attention(c, node, q, k, v, mask, False, scale)  # type: ignore[arg-type]


def _scaled(x: Any) -> tuple[Any, float]:
    """What `x` is a multiple of, and the factor."""
    x, scale = _walk.skip(x), 1.0
    while (operator := _walk.target(x)) in ("aten.mul.Tensor", "aten.div.Tensor"):
        inner, factor = arguments(x, None, None)
        if not isinstance(factor, int | float) or factor == 0:
            break
        x, scale = _walk.skip(inner), scale * factor if operator == "aten.mul.Tensor" else scale / factor
    return x, scale


def _attention(
    c: Converter, node: fx.Node, q: fx.Node, k: fx.Node, v: fx.Node, mask: Any, causal: bool, scale: float | None
) -> Node:
    (*_, queries, d), keys = shape_of(q), shape_of(k)[-2]
    parts = [_walk.heads(x) for x in (q, k, v)]
    computed(c, *(p.tokens for p in parts))
    n, h = shape_of(parts[0].tokens)[int(parts[0].swapped)], parts[0].count
    require(shape_of(k) == shape_of(v) == (*shape_of(q)[:-2], keys, d) and d <= 256)
    require(all(p.count == h and shape_of(p.tokens)[int(p.swapped)] == n for p in parts))
    flags, attrs, constants = _masked(c, mask, causal, (n, h, queries, keys))
    attrs |= {
        "heads": h,
        "size": d,
        "scale": 1 / math.sqrt(d) if scale is None else scale,
        "first": tuple(p.first for p in parts),
    }
    # The value lies as tokens. Who wants heads apart gets them from PyTorch; nearly always they are joined again.
    inputs = [_tokens(c, node, p) for p in parts]
    made = c.make(node, "attention", [*inputs, *flags], attrs, **constants)
    joined = Node(tokens_name(node), *_rest(made, (n, queries, h * d)))
    apart = (n, queries, h, d)
    split = Node(f"{node.name}.split", "torch", (joined.name,), apart, _view(joined.name, list(apart)))
    args = {"target": "aten.transpose.int", "args": [{"value": split.name}, 1, 2], "kwargs": {"dict": {}}}
    c.nodes += [joined, split]
    whole = shape_of(node)
    if len(whole) == 4:
        return Node(node.name, "torch", (split.name,), whole, args)
    turned = Node(f"{node.name}.turned", "torch", (split.name,), (n, h, queries, d), args)
    c.nodes.append(turned)
    return Node(node.name, "torch", (turned.name,), whole, _view(turned.name, list(whole)))


def _tokens(c: Converter, node: fx.Node, part: _walk.Heads) -> str:
    """The name of a part's tokens [N, S, *]."""
    if not part.swapped:
        return c.name(part.tokens)
    s, n, features = shape_of(part.tokens)
    name = f"{c.name(part.tokens)}.swapped"
    if all(made.name != name for made in c.nodes):
        c.nodes.append(Node(name, "swap", (c.name(part.tokens),), (n, s, features)))
    return name


def _rest(node: Node, shape: Shape) -> tuple[Any, ...]:
    return node.op, node.inputs, shape, node.attrs, node.constants, node.source


def _view(name: str, shape: list[int]) -> dict[str, Any]:
    return {"target": "aten.reshape.default", "args": [{"value": name}, shape], "kwargs": {"dict": {}}}


def tokens_name(node: fx.Node) -> str:
    """Our name of an attention's value with the heads joined."""
    return f"{node.name}.tokens"


def joined_heads(c: Converter, node: fx.Node) -> Node | str:
    """The tokens that views join from an attention's heads: as they are, swapped or regrouped. Else `Unsupported`."""
    attention = next((x for x in _walk.views(node) if any(made.name == tokens_name(x) for made in c.nodes)), None)
    require(attention is not None)
    name = tokens_name(attention)  # type: ignore[arg-type]
    made = next(made for made in c.nodes if made.name == name)
    (n, s, features), size = made.shape, made["size"]
    require(shape_of(node)[-1] == features)
    tokens = torch.arange(n * s * features, dtype=torch.int32).reshape(n, s, features)
    apart = tokens.reshape(n, s, -1, size).transpose(1, 2).reshape(shape_of(attention))
    found = _walk.evaluate(node, lambda x: apart if x is attention else None)
    swapped = not torch.equal(found, tokens.reshape(found.shape))
    if swapped:
        require(torch.equal(found, tokens.transpose(0, 1).reshape(found.shape)))
        if shape_of(node) == (s, n, features):
            return c.make(node, "swap", [name])
        name = c.part(node, "swapped", "swap", [name], (s, n, features))
    elif shape_of(node) == made.shape:
        return name
    return c.make(node, "regroup", [name])


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
        value = _additive(_apart(c.value(mask), shape))
        require(bool((value == value[:1]).all()))
        return [], {}, {"bias": _bias(value[:1].expand(1, -1, queries, keys))}
    return _flagged(c, mask, shape)


def _apart(mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """A mask with axes for sample, head, query and key."""
    n, h, *_ = shape
    require(2 <= mask.ndim <= 4)
    if mask.ndim == 3 and mask.shape[0] == n * h:
        return mask.reshape(n, h, *mask.shape[1:])
    return mask[(None,) * (4 - mask.ndim)]


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
        return _additive(_apart(found, shape)).expand(n, -1, queries, keys)

    with torch.no_grad():
        on, off = of(torch.ones(n, keys)), of(torch.zeros(n, keys))
        # a flag may say that a key exists, or that it does not: `none` is what is added where it does not
        inverted = not bool((off == off.flatten()[0]).all())
        some, none = (off, on) if inverted else (on, off)
        lowest = none.flatten()[0]
        require(bool((none == lowest).all()) and bool((some == some[:1]).all()))
        for probe in range(_PROBES):
            drawn = torch.rand(n, keys, generator=torch.Generator().manual_seed(probe)) < 0.5
            require(torch.equal(of(drawn), torch.where(drawn[:, None, None, :], on, off)))
    if bool((some == some.flatten()[0]).all()):
        return flags, {"on": float(on.flatten()[0]), "off": float(off.flatten()[0])}, {}
    require(bool(some.max() == 0) and float(lowest) < -1e30)
    added = {"on": float(lowest), "off": 0.0} if inverted else {"on": 0.0, "off": float(lowest)}
    return flags, added, {"bias": _bias(some[:1])}


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
    return view.chosen(range(first, first + count))
