"""Quantization-aware training: layers round weights and inputs, and gradients pass as if they did not.

The scale of an input follows the data by a moving average; that of a weight is a fixed share of its channel's norm, the
one that was best when quantization began. Neither is a parameter, so no optimizer's steps, which know nothing of how
small scales are, can upset them.
"""

import itertools
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from ..constraints.base import Constraint
from ..constraints.levels import Levels
from ..errors import DataError, TrainingError
from ..quantization.ranges import OBSERVERS
from ..quantization.rounding import Grid, give, roundable, rule_of, unsimulate
from ..recipes.match import Prunable, targeted, weights
from ..recipes.quantization import ActivationGrids, Quantization, WeightGrids
from .hold import Hold

SAMPLE = 2**15
"""Values of an input that are looked at for its range, about."""


class Followed:
    """The grid of a value, which follows the data while a network is trained. Layers that read one value share it, so
    that the value has one form and is rounded once."""

    def __init__(self, settings: ActivationGrids, bits: int, leader: str) -> None:
        self.settings, self.bits, self.leader = settings, bits, leader
        self.grid: Grid | None = None
        """None before it is calibrated."""

    def calibrate(self, seen: "_Seen") -> None:
        """Take the first grid from what a layer has seen."""
        self.grid = self._fit(torch.cat(seen.samples), seen.negative)

    def follow(self, x: Tensor) -> None:
        """Move a little towards the grid that fits `x`."""
        assert self.grid is not None
        looked_at = x.detach() if self.settings.observer == "max" else sample(x)
        seen, kept = self._fit(looked_at, self.grid.low < 0).scale, self.settings.momentum
        self.grid = self.grid.scaled(kept * self.grid.scale + (1 - kept) * seen)

    def _fit(self, values: Tensor, signed: bool) -> Grid:
        steps = Grid.of(1.0, self.bits, signed).high
        return Grid.of(OBSERVERS[self.settings.observer](values, steps), self.bits, signed)


class Learning(nn.Module):
    """How a layer rounds while it is trained. Its state belongs to the shaper, not to the model."""

    share: Tensor | None
    """Scale over norm of each output channel, or of the layer, [channels or 1, 1]."""

    def __init__(self, name: str, followed: Followed | None, levels: Levels | None) -> None:
        super().__init__()
        self.name, self.followed, self.levels = name, followed, levels
        self.register_buffer("share", None, persistent=False)

    @property
    def grid(self) -> Grid | None:
        """What inputs are rounded to."""
        return None if self.followed is None else self.followed.grid

    def input(self, x: Tensor) -> Tensor:
        if self.followed is None or self.followed.grid is None:
            return x
        x = x.float()  # bfloat16 has too few digits for the products of 8 bits
        if self.training and self.followed.leader == self.name and self.followed.settings.momentum < 1:
            self.followed.follow(x)
        return self.followed.grid.round(x)

    def weight(self, w: Tensor) -> Tensor:
        return w if self.share is None else self._rounded(w, self._interval(w))

    def calibrate(self, w: Tensor) -> None:
        """Take the first scales of a weight from its nearest levels."""
        if self.levels is not None:
            found = self.levels.intervals(w).to(w.dtype)
            self.share = found / _norms(w, len(found))

    def finish(self, w: Tensor) -> Tensor:
        """The weight as the layer worked with it, its scales rounded as those of `Levels` are."""
        assert self.levels is not None
        interval = self.levels.representable(self._interval(w).double(), w.dtype)
        return self._rounded(w.detach(), interval.to(w.dtype)).add(0.0)  # -0.0 becomes 0.0

    @property
    def _top(self) -> int:
        assert self.levels is not None
        return int(2 ** (self.levels.bits - 1)) - 1

    def _rounded(self, w: Tensor, interval: Tensor) -> Tensor:
        # A channel of zeros may have any scale but 0.
        scales = interval.where(interval > 0, 1.0).flatten().expand(len(w)).contiguous()
        zeros = torch.zeros(len(w), dtype=torch.int32, device=w.device)
        return torch.fake_quantize_per_channel_affine(w, scales, zeros, 0, -self._top, self._top)

    def _interval(self, w: Tensor) -> Tensor:
        """The scales that belong to the weight as it is now, [channels or 1, 1]."""
        assert self.share is not None
        return self.share * _norms(w.detach(), len(self.share))


@dataclass(frozen=True)
class Quantizer:
    """The layers of a model that round, by name, while it is trained."""

    model: nn.Module
    layers: Mapping[str, nn.Module]
    learning: Mapping[str, Learning]
    batches: int
    """How many batches calibrate."""

    @classmethod
    def of(cls, model: nn.Module, settings: Quantization, hold: Hold) -> Self:
        """For the layers that `settings` mean, none of which rounds yet. RecipeError for a target without a layer."""
        found, able = weights(model), roundable(model)
        ignored = {name for target in settings.ignore for name in targeted(target, found, "quantize.ignore")}
        activations = settings.activations
        of_weights = _by_layer(settings.weights, found, "quantize.weights.bits")
        of_inputs = _by_layer(activations, found, "quantize.activations.bits")
        users = [id(item.weight) for item in found.values()]
        learning = {}
        for name, item in found.items():
            # A weight with two users would need the scales of both.
            if name in ignored or name not in able or users.count(id(item.weight)) > 1:
                continue
            if isinstance(model.get_submodule(name.rpartition(".")[0]), nn.MultiheadAttention):
                continue  # which does not run its parts as layers
            levels = _levels(of_weights.get(name), hold.obeyed(name))
            asked = Followed(activations, of_inputs[name], name) if activations and name in of_inputs else None
            if levels is not None or asked is not None:
                learning[name] = Learning(name, asked, levels)
        return cls(model, {name: able[name] for name in learning}, learning, activations.batches if activations else 0)

    def calibrate(self, inputs: Iterable[Tensor]) -> None:
        """Run `inputs` through the model, take all ranges, and let the layers round from now on."""
        was_training = self.model.training
        seen = {name: _Seen() for name in self.layers}
        for mine in seen.values():
            mine.others = seen
        hooks = [
            layer.register_forward_pre_hook(seen[name].hear, with_kwargs=True) for name, layer in self.layers.items()
        ]
        count = 0
        try:
            self.model.eval()
            for x in itertools.islice(inputs, self.batches):
                self.model(x)
                count += 1
        finally:
            for hook in hooks:
                hook.remove()
            self.model.train(was_training)
        if self.batches and not count:
            raise DataError("there is no batch to calibrate activations with; give some, or quantize weights alone")
        for name, learning in self.learning.items():
            if self.batches and not seen[name].samples:
                continue  # a layer that is not run
            if seen[name].infinite:
                raise TrainingError(f"layer {name!r} sees NaN or infinite inputs; start from a model without them")
            self._share(learning, seen[name].same)
            if learning.followed is not None and learning.grid is None:
                learning.followed.calibrate(seen[name])
            learning.calibrate(self._weight(name))
            give(self.layers[name], learning)
            learning.train(was_training)

    def _share(self, learning: Learning, leader: str | None) -> None:
        """Let a layer round its input as another does that reads the same value on as many bits."""
        first = self.learning[leader].followed if leader is not None else None
        if first is not None and learning.followed is not None and first.bits == learning.followed.bits:
            learning.followed = first

    def round(self, hold: Hold) -> Hold:
        """Make weights the numbers that layers work with, and inputs rounded to fixed grids; what is held then."""
        cuts: dict[str, tuple[Constraint, Tensor, Tensor]] = {}
        for name, learning in self.learning.items():
            layer = self.layers[name]
            if rule_of(layer) is None:
                continue
            if learning.levels is not None:
                weight = self._weight(name)
                weight.copy_(learning.finish(weight))
                cuts[name] = learning.levels, weight.clone(), weight != 0
            if learning.grid is None:
                unsimulate(layer)
            else:
                give(layer, learning.grid)
        return hold.cut(cuts)

    def state_dict(self) -> dict[str, Any]:
        """By layer the scales: numbers and tensors."""
        return {
            name: {
                **({} if learning.share is None else {"share": learning.share}),
                **_saved(learning.followed),
                "fixed": rule_of(self.layers[name]) is not learning,
            }
            for name, learning in self.learning.items()
            if rule_of(self.layers[name]) is not None
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let layers round as when `state_dict` gave the state."""
        for name, saved in state.items():
            learning = self.learning[name]
            if "share" in saved:
                learning.share = saved["share"].to(self._weight(name).device)
            self._share(learning, saved.get("leader"))
            if learning.followed is not None:
                learning.followed.grid = Grid(**saved["grid"])
            give(self.layers[name], learning.grid if saved["fixed"] and learning.grid is not None else learning)
            learning.train(self.layers[name].training)

    def _weight(self, name: str) -> Tensor:
        weight = self.layers[name].weight
        assert isinstance(weight, Tensor)
        return weight


class _Seen:
    """What a layer was given."""

    def __init__(self) -> None:
        self.samples: list[Tensor] = []
        self.negative = self.infinite = False
        self.others: Mapping[str, _Seen] = {}
        self.same: str | None = None
        """The first layer that has read the same value."""
        self.last: Callable[[], Tensor | None] = lambda: None
        """What was read last, if it still is there."""

    def hear(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["input"]
        self.same = next((name for name, other in self.others.items() if other.last() is given), None)
        self.last = weakref.ref(given)
        x = given.detach().float()
        low, high = x.aminmax()
        self.infinite |= not bool(torch.isfinite(low + high))
        self.negative |= bool(low < 0)
        # The largest magnitude goes along, so that observers that look for it find it.
        self.samples += [sample(x).flatten(), torch.maximum(-low, high)[None]]


def _norms(w: Tensor, groups: int) -> Tensor:
    """L2 norms of a weight's channels, or of all of it, [groups, 1]; positive."""
    found: Tensor = w.reshape(groups, -1).norm(dim=1, keepdim=True).clamp(min=torch.finfo(w.dtype).tiny)
    return found


def sample(x: Tensor) -> Tensor:
    """Some whole examples of a batch [batch, ...], about SAMPLE values."""
    return x.detach()[: max(1, SAMPLE * len(x) // max(1, x.numel()))]


def _saved(followed: Followed | None) -> dict[str, Any]:
    if followed is None or followed.grid is None:
        return {}
    return {"grid": vars(followed.grid), "leader": followed.leader}


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
