"""Network purification: what pruning left nearly empty is emptied, and then what became useless by that."""

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import RecipeError
from ..recipes.purification import Purification
from ._atoms import Ids
from ._channels import INPUT, OUTPUT, Flow
from ._layer import Flags, Layer
from .trace import evaluated, given, traced
from .unused import settle


@dataclass(frozen=True)
class Emptied:
    """A layer that purification has touched."""

    layer: str
    small: int
    """Weights that were emptied with units that are nearly empty."""
    useless: int
    """Weights that nothing read any longer, or that read nothing."""


@dataclass(frozen=True)
class Purified:
    """A purified network; `slim` makes it smaller."""

    model: nn.Module
    """A copy with more zeros, of the same shapes."""
    layers: tuple[Emptied, ...]
    """Layers with fewer weights than before."""


def purify(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    *,
    share: float | None = None,
    threshold: float | None = None,
    emptiness: float = 0.5,
    units: Sequence[str] = ("channel", "filter"),
) -> Purified:
    """Empty the filters, channels and columns that pruning left nearly empty, and all weights that this makes useless.

    Outputs change a little; retraining with the zeros held makes up for it (a recipe's `purify` does so between
    shaping and retraining). The first layers' inputs and the last layers' outputs are never emptied.

    Arguments:
        model: any module that `torch.fx` traces; it is left as it is.
        example_inputs: what one call takes.
        share, threshold, emptiness, units: see `Purification`; one of `share` and `threshold` is needed.

    Raises ModelError for a model that cannot be traced, RecipeError for settings out of range, or such that nothing
    reaches an output any longer.

    >>> model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 3))
    >>> with torch.no_grad():
    ...     _ = model[2].weight[:, 1].fill_(1e-4)
    >>> purified = purify(model, torch.randn(1, 1, 8, 8), share=1e-3, emptiness=1.0)
    >>> [(e.layer, e.small, e.useless) for e in purified.layers]
    [('0', 0, 9), ('2', 9, 0)]

    Source: Ma et al. 2019, arXiv:1905.00136; Ma et al. 2020, 'Tiny but accurate', arXiv:1908.10017.
    """
    settings = Purification(share=share, threshold=threshold, emptiness=emptiness, units=units)
    copied = copy.deepcopy(model)
    return Purified(copied, purify_(copied, given(example_inputs), settings))


def purify_(
    model: nn.Module, inputs: tuple[Tensor, ...], settings: Purification, only: Collection[str] | None = None
) -> tuple[Emptied, ...]:
    """`purify` in place; `only` names the layers whose units are looked at."""
    with evaluated(model), torch.no_grad():
        flow = Flow(model, traced(model, inputs))
        dead = _constant_outputs(flow)
        before = [int(torch.count_nonzero(layer.weight)) for layer in flow.layers]
        for layer in flow.layers:
            if layer.groups == 1 and (only is None or layer.name in only):
                _empty_units(flow, layer, settings)
        between = [int(torch.count_nonzero(layer.weight)) for layer in flow.layers]
        settle(flow, fold=False)
        cut = _constant_outputs(flow) - dead
        after = [int(torch.count_nonzero(layer.weight)) for layer in flow.layers]
    if cut:
        raise RecipeError(
            f"purification cuts the network through: outputs of {min(cut)!r} no longer depend on the input; lower "
            f"share ({settings.share}), threshold ({settings.threshold}) or emptiness ({settings.emptiness:g})"
        )
    found = zip(flow.layers, before, between, after, strict=True)
    return tuple(Emptied(layer.name, a - b, b - c) for layer, a, b, c in found if a > c)


def _constant_outputs(flow: Flow) -> set[str]:
    """Layers that make outputs of the model which are the same for any input."""
    known = flow.constants()
    last = [layer for layer in flow.layers if _pinned(flow, layer.writes, OUTPUT).any()]
    return {layer.name for layer in last if not np.isnan(layer.makes(flow.read_by(layer, known))).any()}


def _empty_units(flow: Flow, layer: Layer, settings: Purification) -> None:
    weight = layer.weight
    energy = weight.double().square().flatten(2) if weight.ndim > 2 else weight.double().square()[:, :, None]
    total = energy.sum()
    for unit in settings.units:
        # Of [out, in, taps]: what a unit spans, and its columns among them.
        columns = energy.sum(0) if unit != "filter" else energy.flatten(1)
        size = columns if unit == "column" else columns.sum(1)
        small = torch.ones_like(size, dtype=torch.bool)
        if settings.share is not None:
            small &= size <= settings.share * total
        if settings.threshold is not None:
            small &= size <= settings.threshold**2
        if unit != "column":
            small &= (columns != 0).double().mean(1) <= settings.emptiness
        if bool(small.all()):  # a layer without weights would cut the network
            small.view(-1)[size.argmax()] = False
        pinned = _pinned(flow, layer.writes, OUTPUT) if unit == "filter" else _pinned(flow, layer.reads, INPUT)
        small[torch.from_numpy(pinned).to(small.device)] = False
        gone = small[:, None, None] if unit == "filter" else small.reshape(1, len(small), -1)
        energy.masked_fill_(gone, 0.0)
        weight.masked_fill_(gone.expand_as(energy).reshape(weight.shape), 0.0)
    layer.__dict__.pop("used", None)  # counted anew when asked for


def _pinned(flow: Flow, ids: Ids, why: str) -> Flags:
    return np.array([why in flow.pins.get(c, ()) for c in flow.classes[ids].tolist()], dtype=bool)
