"""`openwork.quantize`: from a trained model and some of its data to a network of few bits, without training."""

import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, fx, nn

from .. import plugins
from ..data import Data
from ..errors import OpenworkNotice, UsageError
from . import report as figures
from .equalize import equalize as equalize_layers
from .histogram import Histogram
from .network import Layer, batch_is_free, captured, layers, left_in_float, op_of, to_device_of
from .observers.base import Observer
from .places import Place, Places, find_places, insert
from .report import LayerFigures, Report
from .rounding import Grid
from .rows import RowGrid, SeenRows, rounds_rows
from .samples import Batch, first, read, regrouped, size
from .settings import Settings
from .simulate import Partly, Rounded, correct_biases, outputs
from .weights import on_grid

_COMPARED = 32
"""Calibration samples that say whether corrected biases serve."""
_REPORT = "quantization"
"""Where a quantized network keeps its report: an attribute, which pickle saves, and in `meta`, which is copied."""


Seen = Histogram | SeenRows
"""What calibration data shows of an activation."""


class Progress(Protocol):
    """Called with what is being done, how many parts of it are done, and of how many."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def quantize(
    model: nn.Module,
    calibration: Iterable[Any] | Data | str,
    example_inputs: Tensor | tuple[Tensor, ...] | None = None,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    observer: str | Mapping[str, Any] | Observer = "mse",
    weights: Literal["mse", "max"] = "mse",
    correct_bias: bool = True,
    per_row: bool = False,
    equalize: bool = False,
    leave: Collection[str] = (),
    samples: int = 256,
    measured: int = 8,
    saturation: float = 0.01,
    progress: Progress | None = None,
) -> nn.Module:
    """Quantize the weights and activations of a trained model after training, on some of its data.

    The result computes in float32 what an engine of whole numbers computes: weights of convolutions and linear layers
    are whole numbers times an interval of their output channel, and what they read is rounded to levels from 0 or
    symmetric around it (`torch.fake_quantize_per_tensor_affine`). Zeros stay zeros, so patterns of pruning stay, too.
    Batch norm is folded; softmax, layer norm, attention's products and additions stay in float32. The result shares
    nothing with the model, is compiled and exported as any module, and takes batches of any size where the model does.

    Args:
        model: any module that `torch.export` captures, dense or pruned; taken as in `model.eval()`.
        calibration: what the model will see, 100 to 500 samples: an iterable of batches (a tensor, or a tuple that
            begins with the model's inputs), a data set or its name (its validation split, else its training split).
        example_inputs: what one call takes, [batch, ...]; default: the first batch, for models of one input.
        weight_bits: bits of a weight, 2..8.
        activation_bits: bits of an activation, 2..8. One that is never negative has levels 0 .. 2^bits - 1, others
            have -(2^(bits-1) - 1) .. 2^(bits-1) - 1.
        observer: where the levels of an activation end: 'minmax', 'percentile', 'mse' or 'entropy'; with settings of
            its own {'kind': 'percentile', 'percent': 99.9}.
        weights: the interval of an output channel: 'mse' for the least squared error, 'max' so that nothing is clipped.
        correct_bias: take the mean error of each output channel into its bias, if outputs are closer to float32 then.
        per_row: round every row that a linear layer reads, such as a token, by its own largest value, found when the
            network runs (dynamic quantization): closer to float32 where rows differ much, as in transformers, and
            slower by a pass over these values. Convolutions have one interval for all as before.
        equalize: first bring the ranges of neighbouring layers together, channel by channel, where that leaves outputs
            as they are.
        leave: names of layers that stay in float32.
        samples: calibration samples, at most.
        measured: samples on which the network is run with one layer quantized at a time, for the report; 0: none.
        saturation: share of an activation's values more than a step beyond its last level from which on a notice names
            the layer.
        progress: called with (what, done, total).

    Returns:
        A module with the model's names of layers. Its figures: `openwork.quantization.quantize.report_of(module)`.

    Raises:
        UsageError: bits or other settings out of range, or an unknown observer or layer.
        DataError: calibration data that is empty, constant, not finite, or of another shape or type than the model's.
        ModelError: weights that are not finite, or a model that makes NaN of the calibration data.
        CaptureError: `torch.export` cannot capture the model, or there is no layer to quantize.

    Example:
        >>> import torch, openwork
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
        >>> small = openwork.quantize(model, [torch.randn(8, 3, 16, 16) for _ in range(4)], measured=0)
        >>> len(small.get_submodule("0").weight[0].unique()) <= 27
        True

    Source: Nagel et al. 2021, arXiv:2106.08295 (a white paper on neural network quantization), section 3.
    """
    settings = Settings(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        observer=observer,
        weights=weights,
        correct_bias=correct_bias,
        per_row=per_row,
        equalize=equalize,
        leave=tuple(leave),
        samples=samples,
        measured=measured,
        saturation=saturation,
    )
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}, not a torch.nn.Module")
    example = (example_inputs,) if isinstance(example_inputs, Tensor) else example_inputs
    batches = read(calibration, example, settings.samples)
    example = tuple(x[:1] for x in batches[0]) if example is None else example
    batches, example = [to_device_of(model, batch) for batch in batches], to_device_of(model, example)
    return _Quantizing(captured(model, example), settings, batches, example, progress or _silent).done()


def report_of(network: nn.Module) -> Report:
    """The figures of a module that `openwork.quantize` or `folder.load` returned."""
    found = getattr(network, _REPORT, None) or getattr(network, "meta", {}).get(_REPORT)
    if not isinstance(found, Report):
        raise UsageError(f"{type(network).__name__} was not made by openwork.quantize; quantize it first")
    return found


def with_report(network: fx.GraphModule, found: Report) -> fx.GraphModule:
    """`network`, finished: with its figures, and without what only its making needed."""
    for node in network.graph.nodes:
        node.meta.clear()  # tensors without data, which hold on to the tracer
    network.meta[_REPORT] = found
    setattr(network, _REPORT, found)
    return network


class _Quantizing:
    """One call of `quantize`, step by step; `network` is in float32 until the end."""

    def __init__(
        self, network: fx.GraphModule, settings: Settings, batches: list[Batch], example: Batch, progress: Progress
    ) -> None:
        self.network, self.settings, self.example, self.progress = network, settings, example, progress
        if any(op_of(node).startswith("fake_quantize") or rounds_rows(node) for node in network.graph.nodes):
            raise UsageError("the model is quantized already; give the float32 model that it was made from")
        known = [layer.name for layer in layers(network)]
        for name in settings.leave:
            if name not in known:
                raise UsageError(plugins.unknown("layer", name, known))
        if not set(known) - set(settings.leave):
            raise UsageError("leave names every layer of the model; leave out fewer, or there is nothing to quantize")
        if settings.per_row and not any(isinstance(layer.module, nn.Linear) for layer in layers(network)):
            raise UsageError("per_row is about linear layers, and the model has none; leave it out")
        self.any_batch = batch_is_free(network)
        self.batches = batches if self.any_batch else regrouped(batches, len(example[0]))
        self.notes: list[str] = []
        """What is to be done about; a warning says so."""
        self.remarks: list[str] = []

    def done(self) -> fx.GraphModule:
        pairs = equalize_layers(self.network) if self.settings.equalize else []
        places = find_places(self.network, self.settings.leave, self.settings.per_row)
        seen = self._observe(places)
        fitted = {node: self._fitted(one) for node, one in seen.items()}
        rounded = self._round(places, fitted)
        if self.settings.correct_bias:
            rounded = self._corrected(rounded)
        few = self._some(self.settings.measured)
        exact = outputs(self.network, few)
        found = self._figures(places, seen, fitted, rounded, few, exact)
        for one in rounded:
            one.layer.module.weight.data.copy_(one.weight)
            one.layer.module.bias.data.copy_(one.bias)
        insert(self.network, places, [fitted[node] for node in places.values])
        whole = figures.between(exact, outputs(self.network, few)) if few else None
        if self.notes:
            warnings.warn("\n".join(self.notes), OpenworkNotice, stacklevel=3)
        report = Report(
            layers=tuple(found),
            places=tuple(Place(node.name, fitted[node]) for node in places.values),
            inputs={name: places.values.index(node) for name, node in places.inputs.items()},
            settings=self.settings.model_dump(mode="json"),
            left=tuple([(name, "as was asked for") for name in self.settings.leave] + left_in_float(self.network)),
            equalized=tuple((pair.first.name, pair.second.name) for pair in pairs),
            samples=size(self.batches),
            takes=tuple((tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in self.example),
            any_batch=self.any_batch,
            output_db=whole,
            notes=(*self.notes, *self.remarks),
        )
        return with_report(self.network, report)

    @torch.no_grad()
    def _observe(self, places: Places) -> dict[fx.Node, Seen]:
        rows = RowGrid.of(self.settings.activation_bits)
        seen = {node: SeenRows(rows) if node in places.by_row else Histogram() for node in places.values}
        watch = _Watch(self.network, seen)
        for number, batch in enumerate(self.batches):
            watch.run(*batch)
            self._say("calibrating", number + 1, self.batches)
        return seen

    def _fitted(self, seen: Seen) -> Grid | RowGrid:
        if isinstance(seen, SeenRows):
            return seen.grid
        return self.settings.observer.fit(seen, self.settings.activation_bits, seen.signed)

    def _round(self, places: Places, fitted: dict[fx.Node, Grid | RowGrid]) -> list[Rounded]:
        rounded: list[Rounded] = []
        chosen = [layer for layer in layers(self.network) if layer.name in places.inputs]
        for layer in chosen:
            weight = on_grid(layer.module.weight, self.settings.weight_bits, self.settings.weights)
            grid = fitted[places.inputs[layer.name]]
            rounded.append(Rounded(layer, weight, layer.module.bias.detach().clone(), grid))
            self._say("rounding weights", len(rounded), chosen)
        return rounded

    def _corrected(self, rounded: list[Rounded]) -> list[Rounded]:
        """With corrected biases, if these bring the outputs closer to what they are in float32."""
        step = "correcting biases"
        found = correct_biases(self.network, rounded, self.batches, lambda n: self._say(step, n, self.batches))
        some = self._some(_COMPARED)
        exact = outputs(self.network, some)
        before, after = (figures.between(exact, outputs(Partly(self.network, f).run, some)) for f in (rounded, found))
        if before is None or after is None or after >= before:
            return found
        self.remarks.append(
            f"biases are as they were: corrected ones take outputs from {before:.1f} to {after:.1f} dB, as they may "
            "where calibration data is padded; correct_bias=False spares the time"
        )
        return rounded

    def _figures(
        self,
        places: Places,
        seen: dict[fx.Node, Seen],
        fitted: dict[fx.Node, Grid | RowGrid],
        rounded: list[Rounded],
        few: list[Batch],
        exact: list[Tensor],
    ) -> list[LayerFigures]:
        """`few`: samples on which outputs are compared; `exact`: what they are in float32."""
        found = []
        for one in rounded:
            node = places.inputs[one.layer.name]
            power, noise, clipped = seen[node].loss(fitted[node])  # type: ignore[arg-type]
            alone = figures.between(exact, outputs(Partly(self.network, [one]).run, few)) if few else None
            line = LayerFigures(
                name=one.layer.name,
                kind=type(one.layer.module).__name__,
                shape=tuple(one.weight.shape),
                weight_db=figures.between([one.layer.module.weight.detach()], [one.weight]),
                input_db=figures.ratio(power, noise),
                output_db=alone,
                input=node.name,
                grid=fitted[node],
                clipped=clipped,
            )
            found.append(line)
            self._remark(one.layer, line, seen[node].largest)
            self._say("measuring layers", len(found), rounded)
        return found

    def _some(self, count: int) -> list[Batch]:
        """Calibration samples on which outputs are compared; more if the network takes several at once."""
        return first(self.batches, count) if self.any_batch else self.batches[: -(-count // len(self.example[0]))]

    def _remark(self, layer: Layer, line: LayerFigures, largest: float) -> None:
        if isinstance(line.grid, Grid) and line.clipped > self.settings.saturation:
            self.notes.append(
                f"{layer.name}: {100 * line.clipped:.2g} % of its input lies more than a step beyond the last level, "
                f"{line.grid.scale * line.grid.high:.4g} (largest: {largest:.4g}); choose observer minmax, "
                f"more activation bits, or leave the layer in float32: leave=({layer.name!r},)"
            )
        if not largest and isinstance(line.grid, Grid):
            self.notes.append(
                f"{layer.name}: its input is zero on all calibration data, so its levels are a guess; give more samples"
            )

    def _say(self, what: str, done: int, parts: Collection[Any]) -> None:
        self.progress(what, done, len(parts))


class _Watch(fx.Interpreter):
    """Counts the activations of a graph as it runs."""

    def __init__(self, network: fx.GraphModule, seen: dict[fx.Node, Seen]) -> None:
        super().__init__(network)
        self.extra_traceback = False
        self._seen = seen

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if n in self._seen:
            self._seen[n].add(found, n.name)
        return found


def _silent(what: str, done: int, total: int) -> None:
    """Nobody wants to know."""


__all__ = ["Progress", "quantize", "report_of"]
