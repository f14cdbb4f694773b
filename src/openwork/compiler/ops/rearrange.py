"""Views and permutations in a row that come to something simple: shuffled channels, larger or smaller images.

They leave nodes of the operators `channels`, `interleave`, `phases` and `flatten`. What a chain of views does is not
derived from its operators: the numbers of the elements are sent through it.
"""

import math

import torch
from torch import Tensor, fx

from ..graph import Node
from ..operators import Converter, captures, computed, rank, require, shape_of
from . import _walk
from .channels import chosen
from .interleave import interleaved

_RESHAPES = (
    *("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.flatten.using_ints"),
    *("aten.unflatten.int", "aten.unsqueeze.default"),
    *("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims"),
)
_TURNS = ("aten.permute.default", "aten.transpose.int")
_COPIES = ("aten.clone.default", "aten.contiguous.default", "aten.alias.default")


@captures(*_RESHAPES, *_TURNS)
def capture(c: Converter, node: fx.Node) -> Node | str:
    x, turned = _origin(node)
    computed(c, x)
    before, after = shape_of(x), shape_of(node)
    require(len(before) in (2, 4) and len(after) in (2, 4))
    if not turned:
        require(before[0] == after[0])
        return c.make(node, "flatten", [x])
    require(len(before) == len(after) == 4)
    return _permuted(c, node, x)


def _origin(node: fx.Node) -> tuple[fx.Node, bool]:
    """The features or images that a chain of views begins with, and whether the chain turns axes."""
    x, turned = node, False
    while True:
        turned = turned or _walk.target(x) in _TURNS
        before = x.args[0]
        assert isinstance(before, fx.Node)
        x = before
        if rank(x) in (2, 4) or _walk.target(x) not in (*_RESHAPES, *_TURNS, *_COPIES):
            return x, turned


def _permuted(c: Converter, node: fx.Node, x: fx.Node) -> Node | str:
    """What the views do to images, told from where each element goes."""
    (n, channels, h, w), (_, _, h2, w2) = shape_of(x), shape_of(node)
    require(shape_of(node)[0] == n)
    source = torch.arange(math.prod(shape_of(x)), dtype=torch.int32).reshape(shape_of(x))
    found = _walk.evaluate(node, lambda node: source if node is x else None)
    if (h, w) == (h2, w2):
        index = _channel(found[0, :, 0, 0], h * w)
        require(torch.equal(found, source[:, index]))
        return chosen(c, node, x, index.tolist())
    if h2 % h == w2 % w == 0:
        fy, fx_ = h2 // h, w2 // w
        index = _channel(found[0, :, :fy, :fx_].reshape(-1), h * w)
        whole = source[:, index].reshape(n, -1, fy, fx_, h, w).permute(0, 1, 4, 2, 5, 3).reshape(found.shape)
        require(torch.equal(found, whole))
        return interleaved(c, node, x, (fy, fx_), index.tolist())
    require(h % h2 == w % w2 == 0)
    fy, fx_ = h // h2, w // w2
    first = found[0, :, 0, 0].long()
    channel, row, column = first // (h * w), first // w % h, first % w
    require(bool((row < fy).all() and (column < fx_).all()))
    parts = source.reshape(n, channels, h2, fy, w2, fx_).permute(0, 1, 3, 5, 2, 4).reshape(n, -1, h2, w2)
    index = (channel * fy + row) * fx_ + column
    require(torch.equal(found, parts[:, index]))
    return c.make(node, "phases", [x], {"factor": (fy, fx_), "index": tuple(index.tolist())})


def _channel(elements: Tensor, pixels: int) -> Tensor:
    return (elements // pixels).long()
