"""Convolutions and linear layers as matrices: what they make of known values, and how they do without an input."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from ._atoms import Ids

Flags = NDArray[np.bool_]
Values = NDArray[np.float64]
"""What a channel holds everywhere; NaN: not the same value everywhere, or not known."""


@dataclass
class Layer:
    """A convolution or linear layer, seen as a matrix `[out, in / groups, taps]` of weights."""

    name: str
    module: Any
    source: fx.Node | None
    """What it reads; None: something of which nothing is known."""
    reads: Ids
    """Atoms of the channels it reads."""
    writes: Ids
    """Atoms of those it writes."""
    uneven: bool = False
    """Whether one value everywhere in an input channel can make several in the output: at a border of zeros, or where a
    transposed convolution's taps do not meet."""
    norm: _BatchNorm | None = None
    """The batch norm that alone reads what it writes."""
    bias: bool = True
    """Whether a bias of the module is (or would be) added."""

    @property
    def groups(self) -> int:
        """1 for all but grouped and depthwise convolutions."""
        return int(getattr(self.module, "groups", 1))

    @property
    def weight(self) -> Tensor:
        """`[out, in / groups, ...]`, a view."""
        weight: Tensor = self.module.weight.detach()
        return weight.transpose(0, 1) if isinstance(self.module, _ConvTransposeNd) else weight

    @cached_property
    def used(self) -> Flags:
        """`[out, in / groups]`: whether any weight is not zero. Kept up to date by the methods below."""
        return nonzero(self.weight, axes=2)

    def needs(self) -> Flags:
        """Which inputs any output depends on; of a layer without groups."""
        return np.asarray(self.used.any(axis=0))

    def takes(self, values: Values) -> Flags:
        """Which inputs hold a value that an output's bias can stand for exactly."""
        takes_any = not self.uneven and (self.bias or self.norm is not None)
        return np.asarray(~np.isnan(values) & ((values == 0) | takes_any))

    def makes(self, values: Values) -> Values:
        """What the outputs hold, if the inputs hold `values`."""
        groups, out, inner = self.groups, *self.used.shape
        still = self.takes(values).reshape(groups, 1, inner)
        moving = (self.used.reshape(groups, out // groups, inner) & ~still).any(axis=2).reshape(-1)
        made = np.full(out, np.nan)
        if moving.all():
            return made
        rows = np.flatnonzero(~moving)
        bias = self.module.bias
        made[rows] = 0.0 if bias is None else bias.detach().double().numpy(force=True)[rows]
        given = np.where(still[:, 0], values.reshape(groups, inner), 0.0)
        if given.any():
            sums = _sums(self.weight[torch.from_numpy(rows).to(self.weight.device)])
            made[rows] += (sums * given[rows // (out // groups)]).sum(axis=1)
        return made

    def fold(self, places: Ids, values: Values) -> None:
        """Let the bias (or the batch norm after it) stand for inputs at `places`, and zero their weights."""
        change = torch.from_numpy(_sums(self.weight[:, self._at(places)]) @ values)
        if change.any():
            self._shift(change)
        self.zero_inputs(places)

    def merge(self, place: int, into: int, ratio: float) -> None:
        """Let input `into`, which holds 1 / `ratio` of what `place` holds, stand for both."""
        weight = self.weight
        total = weight[:, into].double() + ratio * weight[:, place].double()
        weight[:, into] = total.to(weight.dtype)
        self.used[:, into] = nonzero(weight[:, into], axes=1)
        self.zero_inputs(np.array([place]))

    def zero_inputs(self, places: Ids) -> None:
        """Weights of these inputs become zero; of a layer without groups."""
        self.weight[:, self._at(places)] = 0.0
        self.used[:, places] = False

    def zero_outputs(self, places: Ids) -> None:
        """Weights of these outputs become zero."""
        self.weight[self._at(places)] = 0.0
        self.used[places] = False

    def _shift(self, change: Tensor) -> None:
        """Add to every output."""
        module, norm = self.module, self.norm
        if module.bias is None and norm is not None and norm.running_mean is not None:
            norm.running_mean -= change.to(norm.running_mean)
        elif module.bias is None:
            module.bias = nn.Parameter(change.to(module.weight), requires_grad=module.weight.requires_grad)
        else:
            module.bias.data += change.to(module.bias)

    def _at(self, places: Ids) -> Tensor:
        return torch.from_numpy(places).to(self.module.weight.device)


@dataclass
class Scale:
    """A module with parameters for each channel and none across: batch norm, PReLU."""

    name: str
    module: nn.Module
    ids: Ids


def nonzero(weight: Tensor, axes: int) -> Flags:
    """Whether anything differs from zero, for each place along the first `axes` axes."""
    found = weight.detach() != 0
    return (found.flatten(axes).any(axes) if found.ndim > axes else found).numpy(force=True)


def _sums(weight: Tensor) -> Values:
    """`[out, in]`: sums over taps."""
    return weight.double().flatten(2).sum(2).numpy(force=True) if weight.ndim > 2 else weight.double().numpy(force=True)
