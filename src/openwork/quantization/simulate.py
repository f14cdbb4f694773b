"""The network in float32 with any of its layers quantized: what biases are corrected by, and errors traced to."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from .network import Layer
from .rounding import Grid
from .rows import RowGrid
from .samples import Batch


@dataclass(frozen=True)
class Rounded:
    """What quantization makes of a layer."""

    layer: Layer
    weight: Tensor
    """On its grid."""
    bias: Tensor
    grid: Grid | RowGrid
    """How its input is rounded."""

    def __call__(self, x: Tensor) -> Tensor:
        """The layer's outputs, its own input `x` rounded first."""
        found: Tensor = functional_call(
            self.layer.module, {"weight": self.weight, "bias": self.bias}, (self.grid.round(x),)
        )
        return found


class Partly(fx.Interpreter):
    """Runs a graph in float32, but for the layers in `rounded`."""

    def __init__(self, network: fx.GraphModule, rounded: Collection[Rounded] = ()) -> None:
        super().__init__(network)
        self.extra_traceback = False
        self._rounded = {one.layer.name: one for one in rounded}

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        one = self._rounded.get(target)
        return super().call_module(target, args, kwargs) if one is None else one(*args)


class _Shifts(fx.Interpreter):
    """By name of a layer, the sum over a batch of what quantizing it alone does to its outputs, and of how many."""

    def __init__(self, network: fx.GraphModule, rounded: Collection[Rounded]) -> None:
        super().__init__(network)
        self.extra_traceback = False
        self._rounded = {one.layer.name: one for one in rounded}
        self.sums = {
            name: one.bias.new_zeros(len(one.bias), dtype=torch.float64) for name, one in self._rounded.items()
        }
        self.counts = dict.fromkeys(self._rounded, 0)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        found = super().call_module(target, args, kwargs)
        if target in self._rounded:
            axis = -1 if isinstance(self._rounded[target].layer.module, nn.Linear) else 1
            shift = (self._rounded[target](*args) - found).double().movedim(axis, 0).flatten(1)
            self.sums[target] += shift.sum(1)
            self.counts[target] += shift.shape[1]
        return found


@torch.no_grad()
def correct_biases(
    network: fx.GraphModule, rounded: Sequence[Rounded], batches: list[Batch], progress: Callable[[int], None]
) -> list[Rounded]:
    """The same layers, each with the mean error of its output channels over calibration data taken into its bias.

    The error is what rounding its weights and its input brings, measured on the inputs that the layer has in the
    float32 network, for all layers in one pass. Afterwards it is zero on average.

    Source: Nagel, van Baalen, Blankevoort and Welling 2019, arXiv:1906.04721, section 4.2 (empirical correction).
    """
    shifts = _Shifts(network, rounded)
    for number, batch in enumerate(batches):
        shifts.run(*batch)
        progress(number + 1)
    means = [shifts.sums[one.layer.name] / max(1, shifts.counts[one.layer.name]) for one in rounded]
    return [
        replace(one, bias=(one.bias.double() - mean).to(one.bias.dtype))
        for one, mean in zip(rounded, means, strict=True)
    ]


@torch.no_grad()
def outputs(run: Callable[..., Any], batches: list[Batch]) -> list[Tensor]:
    """All float results over all batches."""
    leaves = [leaf for batch in batches for leaf in pytree.tree_leaves(run(*batch))]
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
