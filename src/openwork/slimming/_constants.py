"""What channels hold where they hold one value everywhere, from one operator to the next."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ._layer import Values, nonzero
from ._nodes import arguments, held, inputs_of
from ._operators import name_of

Make = Callable[[dict[fx.Node, Values]], Values]
"""What the channels of a value hold, from what those before it hold."""


def same_as(source: fx.Node) -> Make:
    """What the value before holds."""
    return lambda known: known[source]


def kept_if(source: fx.Node, border: float) -> Make:
    """What has the value of the border keeps it."""
    return lambda known: np.where(known[source] == border, known[source], np.nan)


def pooled(node: fx.Node, module: nn.Module | None) -> Make:
    """Averages count a border of zeros unless they are told not to."""
    (source,) = inputs_of(node)
    names, found = ("padding", "count_include_pad", "divisor_override"), [0, True, None]
    if isinstance(module, nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d):
        found = [getattr(module, name, None) for name in names]
    elif name_of(node).startswith("avg_pool"):
        places = ("kernel_size", "stride", names[0], "ceil_mode", *names[1:])
        _, _, border, _, *rest = arguments(node, *places, default=(None, None, 0, False, True, None))
        found = [border, *rest]
    padding, counted, divisor = found
    wide = any(padding) if isinstance(padding, tuple | list) else bool(padding)
    return kept_if(source, 0.0) if (wide and counted) or divisor else same_as(source)


def padded(node: fx.Node) -> Make:
    """A border of another value makes a channel uneven."""
    _, mode, filler = arguments(node, "pad", "mode", "value", default=((), "constant", None))
    (source,) = inputs_of(node)
    return kept_if(source, float(filler or 0)) if mode == "constant" else same_as(source)


def normed(module: _BatchNorm, evaluated: Make) -> Make:
    """A factor of zero leaves the bias, whatever comes in."""

    def make(known: dict[fx.Node, Values]) -> Values:
        found = evaluated(known)
        if module.weight is None:
            return found
        bias = module.bias.detach().double().numpy(force=True)
        return np.where(nonzero(module.weight, axes=1), found, bias)

    return make


def evaluated(node: fx.Node, module: nn.Module | None, axes: Mapping[fx.Node, int]) -> Make:
    """The operator itself, on one element of each channel; `axes` are those of the channels of what it reads."""

    def value_of(source: fx.Node, known: dict[fx.Node, Values]) -> Any:
        value = held(source)
        if not isinstance(value, Tensor):
            return value
        shape = [1] * value.ndim
        shape[axes[source]] = -1
        return torch.from_numpy(known[source]).to(device, dtype, copy=True).reshape(shape)

    parameter = next(module.parameters(), None) if module is not None else None
    device = torch.device("cpu") if parameter is None else parameter.device
    dtype = held(node).dtype

    @torch.no_grad()
    def make(known: dict[fx.Node, Values]) -> Values:
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: value_of(source, known))
        if module is not None:
            found = module(*args, **kwargs)
        elif node.op == "call_method":
            found = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            found = node.target(*args, **kwargs)  # type: ignore[operator]
        unknown = np.any(np.broadcast_arrays(*(np.isnan(known[source]) for source in inputs_of(node))), axis=0)
        made = found.double().flatten().numpy(force=True)
        # Some operators turn NaN into a number.
        return np.where(unknown | ~np.isfinite(made), np.nan, made)

    return make
