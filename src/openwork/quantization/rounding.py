"""Layers whose inputs are rounded to a few values: in PyTorch's floats, what integers of a few bits compute.

A value is rounded where it is made, if a module gives it, so that all who read it read the same numbers, additions too;
else where a layer reads it. Both are called places: `conv1` is the input of that layer, `layer1.0:output` what that
module gives.

A module that rounds gets a subclass of its own class, as torch's parametrizations give it one: names of layers and
weights, `isinstance` and the state stay as they are, copies work, and `torch.export` sees a call of
`torch.fake_quantize_per_tensor_affine` at each place. Nothing marks weights: that they lie on a grid is a property
of their numbers.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ..errors import ModelError, RunError
from ..files import write_text

FILE = "activations.json"
"""The grids of a model's places, beside its weights."""
OUTPUT = ":output"
"""Ends the name of a place that is what a module gives."""

_ROUNDING = "_openwork_rounding"
_FORMAT = 1


@dataclass(frozen=True)
class Grid:
    """The numbers `low * scale`, `(low + 1) * scale`, ..., `high * scale`; 0 is one of them, so zero padding is exact.

    >>> Grid(scale=0.5, low=0, high=3).round(torch.tensor([-1.0, 0.6, 9.0]))
    tensor([0.0000, 0.5000, 1.5000])
    """

    scale: float
    """Distance of neighbours, above 0."""
    low: int
    """0, or minus `high`."""
    high: int
    """At most 255, or 127 with a sign."""

    @classmethod
    def of(cls, largest: float, bits: int, signed: bool) -> "Grid":
        """As many values as `bits` hold, up to `largest`; if `signed`, one fewer, as many below 0 as above."""
        high = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
        # A layer that sees zeros only may have any grid.
        return cls(1.0, -high if signed else 0, high).scaled(largest / high or 1.0)

    @property
    def levels(self) -> str:
        """In words, for tables."""
        return f"{self.low}..{self.high} x {self.scale:.3g}"

    def call(self, x: fx.Node) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The call that rounds a value of a graph."""
        return torch.fake_quantize_per_tensor_affine, (x, self.scale, 0, self.low, self.high)

    def scaled(self, scale: float) -> "Grid":
        """The same with another scale, which is rounded to a float32 number, as engines have it."""
        return replace(self, scale=float(np.float32(scale)))

    def round(self, x: Tensor) -> Tensor:
        """`x` on the grid: the nearest number of it, of two the even one. Gradients are 1 inside its ends, 0 beyond."""
        return torch.fake_quantize_per_tensor_affine(x, self.scale, 0, self.low, self.high)


class Rounding(Protocol):
    """What a layer does to its input and its weight before it uses them, and any module to what it gives."""

    def input(self, x: Tensor, training: bool) -> Tensor:
        """The input that the layer works on; `training`: whether the layer is in training mode."""

    def weight(self, w: Tensor) -> Tensor:
        """The weight that the layer works with."""

    def output(self, x: Tensor, training: bool) -> Tensor:
        """What the module gives instead."""


@dataclass(frozen=True)
class Fixed:
    """Inputs and outputs are rounded to grids that no longer change; weights lie on theirs already."""

    before: Grid | None = None
    after: Grid | None = None

    def input(self, x: Tensor, training: bool) -> Tensor:
        return x if self.before is None else self.before.round(x)

    def weight(self, w: Tensor) -> Tensor:
        return w

    def output(self, x: Tensor, training: bool) -> Tensor:
        return x if self.after is None else self.after.round(x)


def roundable(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can round their inputs, by name: convolutions and linear layers that compute what torch's own
    do."""
    return {name: module for name, module in model.named_modules() if _plain_forward(_plain(type(module)))}


def simulate(model: nn.Module, grids: Mapping[str, Grid]) -> nn.Module:
    """Let `model` round to `grids`, by name of the place, from now on; returns `model`.

    Other layers do what they did. Raises ModelError for a place that there is none of.

    >>> model = simulate(nn.Sequential(nn.Linear(2, 2)), {"0": Grid(scale=0.1, low=-127, high=127)})
    >>> grids(model)
    {'0': Grid(scale=0.1, low=-127, high=127)}
    >>> type(unsimulate(model)[0])
    <class 'torch.nn.modules.linear.Linear'>
    """
    modules, layers = dict(model.named_modules()), roundable(model)
    for place in grids:
        if place.removesuffix(OUTPUT) not in (modules if place.endswith(OUTPUT) else layers):
            kind = "module" if place.endswith(OUTPUT) else "convolution or linear layer"
            raise ModelError(f"{place!r} is no {kind} of {type(model).__name__}; drop its scale")
    for name in dict.fromkeys(place.removesuffix(OUTPUT) for place in grids):
        give(modules[name], Fixed(grids.get(name), grids.get(name + OUTPUT)))
    return model


def grids(model: nn.Module) -> dict[str, Grid]:
    """The grids that `model` rounds to, by name of the place."""
    found: dict[str, Grid] = {}
    for name, module in model.named_modules():
        if isinstance(how := rule_of(module), Fixed):
            places = {name: how.before, name + OUTPUT: how.after}
            found |= {place: grid for place, grid in places.items() if grid is not None}
    return found


def unsimulate(model: nn.Module) -> nn.Module:
    """Let nothing in `model` round any more, and return it; weights stay as they are."""
    for module in list(model.modules()):
        take(module)
    return model


def give(module: nn.Module, how: Rounding) -> None:
    """Let a module round, in the place of what it did before."""
    if rule_of(module) is None:
        module.__class__ = _rounding_class(type(module))
    else:
        delattr(module, _ROUNDING)
    setattr(module, _ROUNDING, how)


def take(module: nn.Module) -> None:
    """Make a module that rounds a plain one again; those inside it go on."""
    if rule_of(module) is not None:
        delattr(module, _ROUNDING)
        module.__class__ = _plain(type(module))


def rule_of(module: nn.Module) -> Rounding | None:
    """What `give` gave, None of a plain module."""
    return getattr(module, _ROUNDING, None) if isinstance(module, _Rounds) else None


def save(path: Path, found: Mapping[str, Grid]) -> None:
    """Write grids by place as JSON, whole or not at all."""
    places = {name: asdict(grid) for name, grid in found.items()}
    write_text(path, json.dumps({"format": _FORMAT, "places": places}, indent=1) + "\n")


def load(path: Path) -> dict[str, Grid]:
    """What `save` wrote; RunError if the file is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {str(name): Grid(**fields) for name, fields in content["places"].items()}
        sound = content["format"] == _FORMAT and all(map(_sound, found.values()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({error}); make it anew from the run it belongs to") from None
    if not sound:
        raise RunError(f"{path} holds no grids of this version; make it anew from the run it belongs to")
    return found


def _sound(grid: Grid) -> bool:
    whole = isinstance(grid.low, int) and isinstance(grid.high, int)
    return whole and math.isfinite(grid.scale) and grid.scale > 0 and 0 < grid.high <= 255 and -127 <= grid.low <= 0


class _Rounds:
    """Mark of classes that round; of a plain class there is one, made on demand."""

    PLAIN: type[nn.Module]


class _Convolution(_Rounds, nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        how: Rounding = getattr(self, _ROUNDING)
        x, weight = how.input(input, self.training), how.weight(self.weight)
        return how.output(self._conv_forward(x, weight, self.bias), self.training)


class _Linear(_Rounds, nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        how: Rounding = getattr(self, _ROUNDING)
        x, weight = how.input(input, self.training), how.weight(self.weight)
        return how.output(functional.linear(x, weight, self.bias), self.training)


class _Other(_Rounds, nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        how: Rounding = getattr(self, _ROUNDING)
        return how.output(super().forward(*args, **kwargs), self.training)


_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}
"""Of a plain class the one that rounds: one, so that modules of one type stay of one type."""


def _rounding_class(plain: type[nn.Module]) -> type[nn.Module]:
    if plain not in _CLASSES:
        layer = _Convolution if issubclass(plain, nn.Conv2d) else _Linear
        base = layer if _plain_forward(plain) else _Other
        fields: dict[str, Any] = {"PLAIN": plain, "__module__": __name__, "__doc__": plain.__doc__}
        _CLASSES[plain] = type(f"Rounding{plain.__name__}", (base, plain), fields)
    return _CLASSES[plain]


def _plain(cls: type[nn.Module]) -> type[nn.Module]:
    return cls.PLAIN if issubclass(cls, _Rounds) else cls


def _plain_forward(cls: type[nn.Module]) -> bool:
    return cls.forward in (nn.Conv2d.forward, nn.Linear.forward)
