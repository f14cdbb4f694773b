"""`slim`: a network without the channels that it does not need, and with the same outputs."""

import copy
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.utils._pytree import tree_leaves

from .. import plugins
from ..errors import ModelError, UsageError
from ..recipes.match import weights
from ..recipes.recipe import Recipe
from ._atoms import Ids
from ._channels import Flow
from ._held import constraints_of, require_held
from ._layer import Flags, Layer
from .narrow import narrow
from .trace import evaluated, given, require_finite, traced
from .unused import Settled, settle

TOLERANCE = 1e-5
"""Largest difference of outputs, relative to the largest output or 1, that is rounding."""

Reasons = tuple[tuple[int, str], ...]
"""Channels and why, most first."""


@dataclass(frozen=True)
class Row:
    """A layer of a slimmed network."""

    name: str
    before: tuple[int, ...]
    """Shape of its weight."""
    after: tuple[int, ...]
    """Shape of what is left of it."""
    removed: Reasons = ()
    """Outputs that are gone, and why they could go."""
    left: Reasons = ()
    """Outputs without weights and inputs without readers that are still there, and why."""
    note: str = ""
    """Why the layer was not looked into."""


@dataclass(frozen=True)
class Slimmed:
    """A smaller network with the same outputs; print it for a table."""

    model: nn.Module
    """A plain torch module of the same class, with the same names; the model that was given is untouched."""
    rows: tuple[Row, ...]
    """Every layer with weights."""
    difference: float
    """Largest difference of an output on the example inputs."""

    @property
    def weights_before(self) -> int:
        """Weights of all layers, zeros included; biases excluded."""
        return sum(int(np.prod(row.before)) for row in self.rows)

    @property
    def weights_after(self) -> int:
        """Those that are left."""
        return sum(int(np.prod(row.after)) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "weights": {"before": self.weights_before, "after": self.weights_after},
            "difference": self.difference,
            "layers": [asdict(row) for row in self.rows],
        }

    def __str__(self) -> str:
        lines = [("layer", "before", "after", "removed, left")]
        lines += [(row.name, _by(row.before), _by(row.after), "; ".join(_told(row))) for row in self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(3)]
        table = [
            "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[3]]).rstrip()
            for line in lines
        ]
        counts = f"{self.weights_before:,} weights before, {self.weights_after:,} after"
        return "\n".join([*table, "", f"{counts}; outputs differ by {self.difference:.2g}"])


def slim(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    *,
    multiple: int = 1,
    keep: Sequence[str] = (),
    recipe: Recipe | str | Path | None = None,
) -> Slimmed:
    """Cut out of a pruned network what its outputs do not depend on: smaller layers, the same outputs.

    Channels go that nothing reads, and channels that hold one value everywhere (a filter of zeros, then a bias, a batch
    norm, an activation): biases hold that value, and where a border of zeros is in the way one channel stands for all.
    Chains, residual connections, concatenation, flattening, depthwise and grouped convolutions (by whole groups) are
    followed; what is not understood keeps its channels, and the rows say so. The same outputs are meant in evaluation
    mode. A layer keeps at least one channel.

    Arguments:
        model: any module that `torch.fx` traces, with zeros in place; it is left as it is.
        example_inputs: what one call takes; outputs before and after are compared on it.
        multiple: channels of a layer are left in multiples of this, as far as it had them; never fewer are left.
        keep: layers whose inputs and outputs stay.
        recipe: what the model was pruned with; then layouts (blocks, N:M, circulant ...) must hold in smaller layers.

    Returns:
        The smaller copy and one row a layer: what was removed, what was left, and why.

    Raises:
        ModelError: the model cannot be traced, holds NaN or infinity, has parametrizations, or counts its channels in a
            way that tracing does not show.
        ShapeError: a layer would no longer obey its constraint.
        UsageError: `multiple` or a name in `keep` is wrong.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    >>> with torch.no_grad():
    ...     _ = model[0].weight[2:5].zero_()
    >>> slimmed = slim(model, torch.randn(1, 3, 16, 16))
    >>> slimmed.model[0].weight.shape, slimmed.model[3].weight.shape
    (torch.Size([5, 3, 3, 3]), torch.Size([4, 5, 3, 3]))

    Source: Ma et al. 2019, arXiv:1905.00136 (unused path removal).
    """
    inputs = given(example_inputs)
    if multiple < 1:
        raise UsageError(f"multiple={multiple} must be at least 1, such as 8 or 16")
    require_finite(model)
    constraints = {} if recipe is None else constraints_of(model, Recipe.load(recipe))
    small = copy.deepcopy(model)
    with evaluated(small), torch.no_grad():
        expected = _outputs(small, inputs)
        rows: dict[str, Row] = {}
        again = True
        while again:
            flow = Flow(small, traced(small, inputs))
            _pin(flow, keep)
            empty = {layer.name: np.asarray(~layer.used.any(axis=1)) for layer in flow.layers}
            settled = settle(flow)
            stay = _staying(flow, settled, multiple)
            rows = {r.name: _joined(rows.get(r.name), r) for r in _rows(small, flow, settled, stay, empty, multiple)}
            grouped = [layer for layer in flow.layers if layer.groups > 1]
            narrow(flow, stay)
            # What is down to one group is an ordinary convolution, whose channels can go one by one.
            again = any(layer.groups == 1 for layer in grouped)
        difference = _difference(small, inputs, expected)
    before, after = ({name: found.weight for name, found in weights(m).items()} for m in (model, small))
    require_held(constraints, before, after)
    return Slimmed(small, tuple(replace(row, after=_shape(small, row)) for row in rows.values()), difference)


def _joined(earlier: Row | None, row: Row) -> Row:
    return replace(row, before=earlier.before, removed=earlier.removed + row.removed) if earlier else row


def _shape(model: nn.Module, row: Row) -> tuple[int, ...]:
    """Of the weight that a row is about."""
    return row.before if row.note else tuple(cast(Tensor, model.get_submodule(row.name).weight).shape)


def _pin(flow: Flow, keep: Sequence[str]) -> None:
    found = {layer.name: layer for layer in flow.layers}
    for name in keep:
        if name not in found and name not in flow.skipped:
            raise UsageError(plugins.unknown("layer", name, [*found]))
        if name in found:
            for ids in (found[name].reads, found[name].writes):
                for chosen in flow.classes[ids].tolist():
                    flow.pins.setdefault(chosen, []).append(f"{name} is to be kept")


def _staying(flow: Flow, settled: Settled, multiple: int) -> Flags:
    """Classes that are not cut out: of those that can go, the first stay where a layer would lose too many."""
    stay = np.ones(len(flow.classes), dtype=bool)
    stay[list(settled.gone)] = False
    more = True
    while more:
        more = False
        for layer in flow.layers:
            classes = flow.classes[layer.writes]
            for spare in np.unique(classes[~stay[classes]]).tolist():
                if (left := int(stay[classes].sum())) and left % multiple == 0:
                    break
                stay[spare] = more = True
    return stay


def _rows(
    model: nn.Module,
    flow: Flow,
    settled: Settled,
    stay: Flags,
    empty_before: dict[str, Flags],
    multiple: int,
) -> Iterator[Row]:
    layers, why_left = {layer.name: layer for layer in flow.layers}, _Why(flow, settled, multiple)
    others = {name: found for name, found in weights(model).items() if found.layer not in layers}
    for name, module in model.named_modules():
        if name in layers:
            yield _row(flow, layers[name], settled, stay, empty_before[name], why_left)
        inside = {n: found.weight for n, found in others.items() if found.layer == name}
        if isinstance(module, _ConvTransposeNd) and name not in layers:
            inside[name] = module.weight
        for own, weight in inside.items():
            note = flow.skipped.get(name, "forward() does not call it as a module")
            yield Row(own, tuple(weight.shape), tuple(weight.shape), note=note)


def _row(
    flow: Flow, layer: Layer, settled: Settled, stay: Flags, empty_before: Flags, why_left: Callable[[int], str]
) -> Row:
    shape = tuple(layer.module.weight.shape)
    writes, reads = flow.classes[layer.writes], flow.classes[layer.reads]
    removed = [settled.gone[c] for c in writes[~stay[writes]].tolist()]
    idle = [why_left(c) for c in writes[stay[writes] & (empty_before | ~layer.used.any(axis=1))].tolist()]
    if layer.groups == 1:
        idle += [why_left(c) for c in np.unique(reads[stay[reads] & ~layer.needs()]).tolist()]
    return Row(layer.name, shape, shape, _counted(removed), _counted(idle))


class _Why:
    """Why a class of channels is still there."""

    def __init__(self, flow: Flow, settled: Settled, multiple: int) -> None:
        self._flow, self._settled = flow, settled
        self._kept = "a layer keeps one channel" if multiple == 1 else f"channels come in multiples of {multiple}"
        self._makers: dict[int, list[Layer]] = {}
        for layer in flow.layers:
            for chosen in np.unique(flow.classes[layer.writes]).tolist():
                self._makers.setdefault(chosen, []).append(layer)

    def __call__(self, chosen: int) -> str:
        if chosen in self._flow.pins:
            return self._flow.pins[chosen][0]
        if chosen in self._settled.gone:
            return self._kept
        if readers := self._settled.readers.get(chosen):
            makers = [layer for layer in self._makers.get(chosen, []) if self._alive(layer, chosen)]
            together = f" with {_listed([m.name for m in makers])}" if len(self._makers.get(chosen, [])) > 1 else ""
            return f"read{together} by {_listed(readers)}"
        return f"its value is known, and stands for all such at the border of {_listed(self._settled.borders[chosen])}"

    def _alive(self, layer: Layer, chosen: int) -> bool:
        places: Ids = np.flatnonzero(self._flow.classes[layer.writes] == chosen)
        return bool(layer.used[places].any())


def _listed(names: Sequence[str]) -> str:
    shown = list(dict.fromkeys(names))
    return ", ".join(shown[:2]) + (f" and {len(shown) - 2} more" if len(shown) > 2 else "")


def _counted(reasons: Collection[str]) -> Reasons:
    return tuple((count, why) for why, count in Counter(reasons).most_common())


def _told(row: Row) -> Iterator[str]:
    if row.note:
        yield f"left: {row.note}"
    yield from (f"removed {count}: {why}" for count, why in row.removed)
    yield from (f"left {count}: {why}" for count, why in row.left)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    try:
        return [t for t in tree_leaves(model(*inputs)) if isinstance(t, Tensor)]
    except Exception as error:  # whatever a user's forward() may raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{type(model).__name__} does not run on the example inputs: {reason}") from error


def _difference(model: nn.Module, inputs: tuple[Tensor, ...], expected: list[Tensor]) -> float:
    """Largest difference of outputs; ModelError if it is more than rounding."""
    hidden = f"forward() of {type(model).__name__} depends on numbers of channels in a way that tracing does not show"
    try:
        found = _outputs(model, inputs)
    except ModelError as error:
        raise ModelError(f"{hidden} ({error}); name the layers in question in keep") from error
    largest = 0.0
    for ours, theirs in zip(found, expected, strict=True):
        if not theirs.numel():
            continue
        change = float((ours.double() - theirs.double()).abs().max()) if ours.shape == theirs.shape else float("inf")
        if not change <= TOLERANCE * max(1.0, float(theirs.abs().max())):
            raise ModelError(f"{hidden} (outputs change by {change:.2g}); name the layers in question in keep")
        largest = max(largest, change)
    return largest
