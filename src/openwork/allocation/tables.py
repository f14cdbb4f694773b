"""What allocation works on: for each layer a few options, each with its loss and its costs. Plain numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

Limits = Mapping[str, float]
"""The most that each limited cost may be, summed over the layers."""
Picks = tuple[int, ...]
"""For each layer the number of the option taken."""


@dataclass(frozen=True)
class Option:
    """A layer at one sparsity."""

    sparsity: float
    """Share of zeros that the constraint asks for; 0: dense."""
    loss: float
    """What the network loses if this layer alone is so sparse, >= 0."""
    costs: Mapping[str, float]
    """Bytes, multiply-adds, microseconds of the layer."""
    accuracy: float | None = None
    """Of the network with this layer alone so sparse, in [0, 1]; None: not measured."""


@dataclass(frozen=True)
class LayerTable:
    """A layer's options, sparsity rising."""

    name: str
    options: tuple[Option, ...]

    @property
    def dense(self) -> Option | None:
        """The option without zeros, if it is one."""
        return self.options[0] if self.options[0].sparsity == 0 else None


def total(layers: Sequence[LayerTable], picks: Picks, name: str) -> float:
    """Cost `name` of all layers together."""
    return sum(layer.options[pick].costs[name] for layer, pick in zip(layers, picks, strict=True))


def loss(layers: Sequence[LayerTable], picks: Picks) -> float:
    """Losses of all layers, summed: what the network would lose if they did not depend on each other."""
    return sum(layer.options[pick].loss for layer, pick in zip(layers, picks, strict=True))


def met(layers: Sequence[LayerTable], picks: Picks, limits: Limits) -> bool:
    """Whether every limit holds."""
    return all(total(layers, picks, name) <= limit for name, limit in limits.items())


def least(layers: Sequence[LayerTable], name: str) -> float:
    """The smallest that cost `name` can be."""
    return sum(min(option.costs[name] for option in layer.options) for layer in layers)


def smoothed(layer: LayerTable) -> LayerTable:
    """Without what can only be noise: loss never falls and time never rises as sparsity does. A mask with fewer weights
    can always be run by the kernel of one with more."""
    options: list[Option] = []
    for option in layer.options:
        before = options[-1] if options else option
        costs = dict(option.costs)
        if "latency" in costs:
            costs["latency"] = min(costs["latency"], before.costs["latency"])
        options.append(replace(option, loss=max(option.loss, before.loss), costs=costs))
    return replace(layer, options=tuple(options))


def break_even(layer: LayerTable) -> float | None:
    """The least sparsity at which the layer is faster than dense; None if it is at none.

    1 / (1 - sparsity) is the break-even pruning ratio. Source: Ren et al. 2019, arXiv:1812.11677.
    """
    dense = layer.dense
    if dense is None:
        return None
    faster = (o.sparsity for o in layer.options if o.costs["latency"] < dense.costs["latency"])
    return min(faster, default=None)


def beyond_break_even(layer: LayerTable) -> LayerTable:
    """Without the sparse options that are not faster than dense: zeros there cost accuracy and save no time, so the
    layer stays dense, and others have its share of the budget."""
    dense = layer.dense
    if dense is None:
        return layer
    kept = (o for o in layer.options if o is dense or o.costs["latency"] < dense.costs["latency"])
    return replace(layer, options=tuple(kept))


def useful(layer: LayerTable, names: Sequence[str]) -> LayerTable:
    """Without options that save nothing: each one left has less of some cost in `names` than all before it."""
    kept = [layer.options[0]]
    for option in layer.options[1:]:
        if any(option.costs[name] < min(o.costs[name] for o in kept) for name in names):
            kept.append(option)
    return replace(layer, options=tuple(kept))
