"""Weights of neighbouring layers brought to the same range, with the same outputs.

Between two layers a channel may be made smaller by any factor, and larger again, if what lies between them is
positively homogeneous: f(s x) = s f(x). ReLU is, ReLU6 and GELU are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from .network import Layer, arguments, layers, op_of, shape_of
from .places import _operand

ROUNDS = 50
"""Passes over all pairs, at most."""
CLOSE = 1e-4
"""Factors as near to 1 as this end the passes."""

_HOMOGENEOUS = {"relu", "leaky_relu", "max_pool1d", "max_pool2d", "avg_pool1d", "avg_pool2d"}
_HOMOGENEOUS |= {"adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "flatten", "mean", "contiguous"}


@dataclass(frozen=True)
class Pair:
    """Two layers whose only connection is each other."""

    first: Layer
    second: Layer


def pairs(network: fx.GraphModule) -> list[Pair]:
    """Pairs of a graph that `captured` made between which channels can be scaled."""
    return list(_pairs(network))


@torch.no_grad()
def equalize(network: fx.GraphModule) -> list[Pair]:
    """Scale the weights of all pairs of layers, in place, so that the outputs of one and the inputs of the next have
    the same largest magnitudes, channel by channel. The network's outputs are what they were, up to float32.

    Biases are scaled along and not absorbed into the next layer. With an interval for each output channel the weights
    of the first layer gain nothing by this; its outputs do, which share one.

    Source: Nagel, van Baalen, Blankevoort and Welling 2019, arXiv:1906.04721, section 4.1.
    """
    found = pairs(network)
    for _ in range(ROUNDS):
        furthest = 0.0
        for pair in found:
            factor = _factor(pair)
            _scale(pair, factor)
            furthest = max(furthest, float((factor - 1).abs().max()))
        if furthest < CLOSE:
            break
    return found


def _factor(pair: Pair) -> Tensor:
    """What channels of the first layer are divided by: sqrt(r1 r2) / r2 with the ranges of both; 1 of empty ones."""
    own = pair.first.module.weight.flatten(1).abs().amax(1)
    other = _by_channel(pair, len(own)).abs().amax((0, 2))
    there = (own > 0) & (other > 0)
    return torch.where(there, (own / other.where(there, 1.0)).sqrt(), 1.0)


def _scale(pair: Pair, factor: Tensor) -> None:
    first = pair.first.module
    first.weight.div_(factor.view(-1, *[1] * (first.weight.dim() - 1)))
    first.bias.div_(factor)
    _by_channel(pair, len(factor)).mul_(factor[None, :, None])


def _by_channel(pair: Pair, channels: int) -> Tensor:
    """The second layer's weights as [outputs, channels, what reads each]: a view."""
    weight: Tensor = pair.second.module.weight
    if _depthwise(pair.second):
        return weight.view(1, channels, -1)
    return weight.view(len(weight), channels, -1)


def _pairs(network: fx.GraphModule) -> Iterator[Pair]:
    known = {layer.node: layer for layer in layers(network)}
    for first in known.values():
        node = first.node
        between: list[str] = []
        while len(node.users) == 1:
            node = next(iter(node.users))
            if (second := known.get(node)) is not None:
                if _same_channels(first, second, between):
                    yield Pair(first, second)
                break
            if op_of(node) not in _HOMOGENEOUS or not _keeps_channels(node):
                break
            between.append(op_of(node))


def _keeps_channels(node: fx.Node) -> bool:
    """Whether `mean` and `flatten` leave axis 1, or put what follows it beside it: [batch, channels, ...]."""
    op, given, rank = op_of(node), arguments(node), len(shape_of(_operand(node)) or ())
    if op == "mean":
        return bool(given["dim"]) and all(axis % rank > 1 for axis in given["dim"])
    return op != "flatten" or given["start_dim"] % rank == 1


def _same_channels(first: Layer, second: Layer, between: list[str]) -> bool:
    """Whether channel c of one is channel c of the other, or a row of features of a linear layer."""
    image = first.module.weight.dim() > 2
    if second.module.weight.dim() > 2:
        groups = second.module.groups
        return image and not {"flatten", "mean"} & set(between) and (groups == 1 or _depthwise(second))
    if image:  # [batch, channels, ...] became [batch, features]
        shape = _operand(second.node).meta["val"].shape
        return len(shape) == 2 and second.module.in_features % len(first.module.weight) == 0
    return set(between) <= {"relu", "leaky_relu", "contiguous"}


def _depthwise(layer: Layer) -> bool:
    weight: Tensor = layer.module.weight
    return weight.dim() > 2 and weight.shape[1] == 1 and layer.module.groups == len(weight) > 1
