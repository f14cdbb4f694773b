"""Quantization-aware training: modules round weights and activations, and gradients pass as if they did not.

The scale of an activation follows the data by a moving average; that of a weight is a fixed share of its channel's
norm, the one that was best when quantization began. Neither is a parameter, so no optimizer's steps, which know nothing
of how small scales are, can upset them.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from .. import plugins
from ..constraints.base import Constraint
from ..constraints.levels import Levels
from ..errors import DataError, TrainingError
from ..quantization.histogram import Histogram
from ..quantization.observers.base import Observer
from ..quantization.rounding import OUTPUT, Fixed, Grid, give, roundable, rule_of, take
from ..recipes.match import Prunable, targeted, weights
from ..recipes.quantization import ActivationGrids, Quantization, WeightGrids
from .hold import Hold
from .sources import Seen, observed

EVERY = 8
"""Steps from one look at the data to the next: observers take longer than a small layer does."""


class Followed:
    """The grid of a value, which follows the data while a network is trained."""

    def __init__(self, settings: ActivationGrids, bits: int, place: str, grid: Grid, steps: int = 0) -> None:
        self.settings, self.bits, self.place, self.grid, self.steps = settings, bits, place, grid, steps

    @classmethod
    def of(cls, settings: ActivationGrids, bits: int, place: str, seen: Seen) -> Self:
        """With the grid that fits what was seen."""
        return cls(settings, bits, place, _fit(settings, bits, seen.values, seen.values.signed))

    def __call__(self, x: Tensor, follow: bool) -> Tensor:
        """`x` on the grid, which first moves a little towards what fits `x` if it is to `follow`."""
        x = x.float()  # bfloat16 has too few digits for the products of 8 bits
        if follow and self.settings.momentum < 1:
            self.steps += 1
            if self.steps % EVERY == 0:
                self._follow(x.detach())
        return self.grid.round(x)

    def _follow(self, x: Tensor) -> None:
        (now := Seen()).hear(x)
        if not now.infinite:  # the loss will say so
            kept, fit = self.settings.momentum, _fit(self.settings, self.bits, now.values, self.grid.low < 0)
            self.grid = self.grid.scaled(kept * self.grid.scale + (1 - kept) * fit.scale)

    def state_dict(self) -> dict[str, Any]:
        """Numbers and strings."""
        return {"bits": self.bits, "place": self.place, "grid": vars(self.grid), "steps": self.steps}


class Learning:
    """How a module rounds while it is trained. Its state belongs to the shaper, not to the model."""

    def __init__(self, name: str, levels: Levels | None = None) -> None:
        self.name, self.levels = name, levels
        self.before: Followed | None = None
        self.after: Followed | None = None
        self.share: Tensor | None = None
        """Scale over norm of each output channel of the weight, or of the layer, [channels or 1, 1]."""

    def input(self, x: Tensor, training: bool) -> Tensor:
        before = self.before
        return x if before is None else before(x, training and before.place == self.name)

    def output(self, x: Tensor, training: bool) -> Tensor:
        return x if self.after is None else self.after(x, training)

    def weight(self, w: Tensor) -> Tensor:
        return w if self.share is None else self._rounded(w, self._interval(w))

    def calibrate(self, w: Tensor) -> None:
        """Take the scales of a weight from its nearest levels."""
        if self.levels is not None:
            found = self.levels.intervals(w).to(w.dtype)
            self.share = found / _norms(w, len(found))

    def finish(self, w: Tensor) -> Tensor:
        """The weight as the layer worked with it, its scales rounded as those of `Levels` are."""
        assert self.levels is not None
        interval = self.levels.representable(self._interval(w).double(), w.dtype)
        return self._rounded(w.detach(), interval.to(w.dtype)).add(0.0)  # -0.0 becomes 0.0

    def fixed(self) -> Fixed:
        """What is left of it after training."""
        before, after = (None if side is None else side.grid for side in (self.before, self.after))
        return Fixed(before, after)

    def _rounded(self, w: Tensor, interval: Tensor) -> Tensor:
        assert self.levels is not None
        top = 2 ** (self.levels.bits - 1) - 1
        # A channel of zeros may have any scale but 0.
        scales = interval.where(interval > 0, 1.0).flatten().expand(len(w)).contiguous()
        zeros = torch.zeros(len(w), dtype=torch.int32, device=w.device)
        return torch.fake_quantize_per_channel_affine(w, scales, zeros, 0, -top, top)

    def _interval(self, w: Tensor) -> Tensor:
        """The scales that belong to the weight as it is now, [channels or 1, 1]."""
        assert self.share is not None
        self.share = self.share.to(w.device)
        return self.share * _norms(w.detach(), len(self.share))


@dataclass(frozen=True)
class Quantizer:
    """The modules of a model that round while it is trained: layers, and those that give what layers read."""

    model: nn.Module
    settings: Quantization
    learning: dict[str, Learning]
    """By name; before `calibrate`, the layers that may round."""
    bits: Mapping[str, int]
    """Of the inputs of layers."""

    @classmethod
    def of(cls, model: nn.Module, settings: Quantization, hold: Hold) -> Self:
        """For the layers that `settings` mean, none of which rounds yet. RecipeError for a target without a layer."""
        found, able = weights(model), roundable(model)
        ignored = {name for target in settings.ignore for name in targeted(target, found, "quantize.ignore")}
        of_weights = _by_layer(settings.weights, found, "quantize.weights.bits")
        of_inputs = _by_layer(settings.activations, found, "quantize.activations.bits")
        users = [id(item.weight) for item in found.values()]
        learning = {}
        for name, item in found.items():
            # A weight with two users would need the scales of both.
            if name in ignored or name not in able or users.count(id(item.weight)) > 1:
                continue
            if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
                continue  # which does not run its parts as layers
            levels = _levels(of_weights.get(name), hold.obeyed(name))
            if levels is not None or name in of_inputs:
                learning[name] = Learning(name, levels)
        return cls(model, settings, learning, of_inputs)

    def calibrate(self, inputs: Iterable[Tensor]) -> None:
        """Run `inputs` through the model, take all ranges, and let modules round from now on."""
        if (asked := self.settings.activations) is not None:
            seen = observed(self.model, self.learning, itertools.islice(inputs, asked.batches))
            if not seen:
                raise DataError("there is no batch to calibrate activations with; give some, or quantize weights alone")
            for name in self.learning.keys() - seen.keys():
                del self.learning[name]  # a layer that is not run
            self._place(asked, seen)
        for name, learning in self.learning.items():
            if learning.levels is not None:
                learning.calibrate(self._weight(name))
        self._give()

    def _place(self, asked: ActivationGrids, seen: Mapping[str, Seen]) -> None:
        """Let each value be rounded where it is made, else where layers read it; where they want it on different bits,
        those that want fewer round it again."""
        values: defaultdict[str, list[str]] = defaultdict(list)
        for name, mine in seen.items():
            if mine.infinite:
                raise TrainingError(f"layer {name!r} sees NaN or infinite inputs; start from a model without them")
            if name in self.bits:
                values[min(mine.readers)].append(name)
        for readers in values.values():
            most = max(self.bits[name] for name in readers)
            maker = "".join(seen[readers[0]].makers)
            place = maker + OUTPUT if maker else next(name for name in readers if self.bits[name] == most)
            shared = Followed.of(asked, most, place, seen[readers[0]])
            if maker:
                self.learning.setdefault(maker, Learning(maker)).after = shared
            for name in readers:
                fewer = self.bits[name] < most
                own = Followed.of(asked, self.bits[name], name, seen[name]) if fewer else shared
                self.learning[name].before = None if maker and not fewer else own

    def round(self, hold: Hold) -> Hold:
        """Make weights the numbers that layers work with, and round activations to fixed grids; what is held then."""
        cuts: dict[str, tuple[Constraint, Tensor, Tensor]] = {}
        for name, learning in self.learning.items():
            if learning.levels is not None:
                weight = self._weight(name)
                weight.copy_(learning.finish(weight))
                cuts[name] = learning.levels, weight.clone(), weight != 0
        self._give(fixed=True)
        return hold.cut(cuts)

    def state_dict(self) -> dict[str, Any]:
        """Numbers, strings and tensors."""
        return {
            "fixed": not any(isinstance(rule_of(self._module(name)), Learning) for name in self.learning),
            "modules": {name: _saved(learning) for name, learning in self.learning.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let modules round as when `state_dict` gave the state."""
        places: dict[str, Followed] = {}
        for name in self.learning.keys() - state["modules"].keys():
            del self.learning[name]
        for name, saved in state["modules"].items():
            learning = self.learning.setdefault(name, Learning(name))
            learning.share = saved.get("share")
            for side in ("before", "after"):
                if (found := saved.get(side)) is not None:
                    setattr(learning, side, places.setdefault(found["place"], self._followed(found)))
        self._give(state["fixed"])

    def _followed(self, saved: Mapping[str, Any]) -> Followed:
        assert self.settings.activations is not None
        grid = Grid(**saved["grid"])
        return Followed(self.settings.activations, saved["bits"], saved["place"], grid, saved["steps"])

    def _give(self, fixed: bool = False) -> None:
        for name, learning in self.learning.items():
            if not fixed:
                give(self._module(name), learning)
            elif (left := learning.fixed()) == Fixed():
                take(self._module(name))
            else:
                give(self._module(name), left)

    def _module(self, name: str) -> nn.Module:
        return self.model.get_submodule(name)

    def _weight(self, name: str) -> Tensor:
        weight = self._module(name).weight
        assert isinstance(weight, Tensor)
        return weight


def _fit(settings: ActivationGrids, bits: int, values: Histogram, signed: bool) -> Grid:
    """The grid that the recipe's observer wants for some values."""
    observer = plugins.find(Observer.ROOM, settings.observer, Observer)()  # type: ignore[type-abstract]
    return observer.fit(values, bits, signed)


def _norms(w: Tensor, groups: int) -> Tensor:
    """L2 norms of a weight's channels, or of all of it, [groups, 1]; positive."""
    found: Tensor = w.reshape(groups, -1).norm(dim=1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
    return found


def _saved(learning: Learning) -> dict[str, Any]:
    parts = {"before": learning.before, "after": learning.after}
    return {
        **({} if learning.share is None else {"share": learning.share}),
        **{side: followed.state_dict() for side, followed in parts.items() if followed is not None},
    }


def _by_layer(grids: WeightGrids | ActivationGrids | None, found: dict[str, Prunable], field: str) -> dict[str, int]:
    """Bits of each layer; later targets win."""
    bits = {} if grids is None else grids.bits
    return {name: count for target, count in bits.items() for name in targeted(target, found, field)}


def _levels(bits: int | None, obeyed: Constraint | None) -> Levels | None:
    """The levels of a weight: none if it is on levels already; of the whole layer if its pattern ties weights of
    several channels together."""
    if bits is None or (obeyed is not None and obeyed.quantized):
        return None
    return Levels(bits=bits, per="layer" if obeyed is not None and obeyed.tied else "channel")
