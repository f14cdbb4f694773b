"""`openwork.compile`: capture, optimize, lower, tune, check against PyTorch, and hand over an engine."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.engine import Engine, checked_threads
from ..engine.machine import processor
from ..engine.native import checked_isa
from ..errors import OpenworkError, UsageError
from ..formats.artifact import Artifact, plain_json
from ..formats.program import torch_calls
from .capture import capture
from .check import check, check_padding, name_of_error
from .drafts import Draft, Lowered
from .frequencies import in_frequencies
from .graph import Graph
from .lengths import find_lengths
from .lower import lower
from .nested import nest
from .optimize import optimize
from .tune import Effort, Layer
from .tune import tune as search


def compile(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    *,
    dtype: Literal["float32"] = "float32",
    threads: int | None = None,
    tune: Effort = "fast",
    isa: str = "auto",
    any_length: bool = False,
    levels: Sequence[nn.Module] = (),
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Engine:
    """Compile a model for this machine's CPU.

    Args:
        model: any module that `torch.export` captures; it is compiled as in `model.eval()`.
        example_inputs: tensors `[batch, ...]` of float32, whole numbers or truth values; the program is laid out for
            their shapes. The samples of a batch are worked on one after the other where that is faster.
        dtype: element type of the engine.
        threads: threads of one inference; default: the cores this process may use.
        tune: 'fast' times a few dozen candidates a layer, 'thorough' searches longer, 'off' trusts the cost model.
        isa: instruction set, for comparisons; default: the best of this CPU.
        any_length: also take sequences shorter than `example_inputs` along axis 1. The engine appends zeros to every
            input of that length and cuts the outputs; the model must ignore them, as attention does where its mask
            is zero, which is checked.
        levels: sparser copies of the model, level 2 first: weights of convolutions and linear layers that are zero in
            one are zero in all after it, the others are the model's own; batch norm and biases may differ. The engine
            holds the weights once, and each call chooses: `engine(x, level=2)`.
        name: what to call the model in reports; default: its class.
        provenance: JSON values to keep in the artifact.
        progress: called with (steps done, steps in all) while tuning.

    Returns:
        An engine whose outputs were checked against the model on the example inputs. Its `provenance` holds the error.

    Raises:
        CaptureError: `torch.export` cannot capture the model.
        ModelError: weights are NaN, infinite or empty.
        CompileError: the engine's outputs differ from the model's, for `any_length` also on a shorter input; or
            `levels` differ in more than they may.

    Example:
        >>> import torch, openwork
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
        >>> engine = openwork.compile(model, torch.randn(1, 3, 16, 16), threads=1, tune="off")
        >>> engine(torch.randn(1, 3, 16, 16)).shape
        torch.Size([1, 8, 16, 16])
    """
    settings = Settings.checked(dtype, threads, tune, isa)
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}, not a torch.nn.Module")
    if not all(isinstance(level, nn.Module) for level in levels):
        raise UsageError("levels are sparser copies of the model: a list of torch.nn.Module")
    inputs = _checked_inputs(example_inputs)
    facts = {**(provenance or {}), "name": name or type(model).__name__}
    plain_json(facts)
    if settings.tune == "off" or not inputs[0].dim() or inputs[0].shape[0] == 1:
        return compile_graph(capture(model, inputs), model, inputs, settings, facts, progress, any_length, levels)
    halves = [_half(progress, second) for second in (0, 1)]
    engine = compile_graph(capture(model, inputs), model, inputs, settings, facts, halves[0], any_length, levels)
    engine = in_turns(engine, model, inputs, settings, halves[1], any_length, levels)
    halves[1](1, 1)
    return engine


@dataclass(frozen=True)
class Settings:
    """What people choose about an engine; made by `checked`."""

    dtype: str
    threads: int
    tune: Effort
    isa: str

    @classmethod
    def checked(
        cls, dtype: str = "float32", threads: int | None = None, tune: str = "fast", isa: str = "auto"
    ) -> "Settings":
        """The settings, or an error that names what is wrong with them."""
        if dtype != "float32":
            raise UsageError(f"dtype={dtype!r} is not available; this engine computes in 'float32'")
        if tune not in get_args(Effort):
            raise UsageError(f"tune={tune!r} is not one of {', '.join(map(repr, get_args(Effort)))}")
        return cls(dtype, checked_threads(threads), cast(Effort, tune), checked_isa(isa))


def compile_graph(
    captured: Graph,
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    settings: Settings,
    facts: Mapping[str, Any],
    progress: Callable[[int, int], None] | None = None,
    any_length: bool = False,
    levels: Sequence[nn.Module] = (),
) -> Engine:
    """The engine of a captured graph; `model`, which it was captured from, says on `inputs` what is right."""
    graph = optimize(captured)
    other = None if levels or settings.tune == "off" else in_frequencies(graph)
    if other is None:
        return _engine(graph, model, inputs, settings, facts, progress, any_length, levels)
    engine = _engine(graph, model, inputs, settings, facts, _half(progress, 0), any_length)
    try:
        transformed = _engine(other, model, inputs, settings, facts, _half(progress, 1), any_length)
    except OpenworkError:  # the layers as they are will do
        return engine
    return _faster(engine, transformed)


def _engine(
    graph: Graph,
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    settings: Settings,
    facts: Mapping[str, Any],
    progress: Callable[[int, int], None] | None,
    any_length: bool,
    levels: Sequence[nn.Module] = (),
) -> Engine:
    """The engine of an optimized graph, checked."""
    threads, isa = settings.threads, settings.isa
    lowered = lower(graph, threads, nested=bool(levels))
    if levels:
        sparser = (lower(optimize(capture(level, inputs)), threads, nested=True) for level in levels)
        lowered = nest([lowered, *sparser])
    program, layers = _tune(lowered, threads, isa, settings.tune, progress or (lambda done, total: None))
    if whole := sum(layer.get("type") == "int8" for layer in layers):
        facts = {**facts, "int8": {"layers": whole, "of": sum("weights" in layer for layer in layers)}}
    facts = {
        **facts,
        "torch": torch.__version__,
        "cpu": processor(),
        "tuned": {"effort": settings.tune, "threads": threads},
    }
    if any_length:
        program = replace(program, lengths=find_lengths(program, model, inputs))
    engine = Engine(Artifact(program, tuple(layers), facts), threads, isa)
    error = max(check(engine, network, inputs, level) for level, network in enumerate([model, *levels], 1))
    if any_length:
        check_padding(engine, model, inputs)
    return _with_facts(engine, {**facts, "isa": engine.isa, name_of_error(engine): error})


def in_turns(
    engine: Engine,
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    settings: Settings,
    progress: Callable[[int, int], None],
    any_length: bool,
    levels: Sequence[nn.Module] = (),
) -> Engine:
    """An engine that works on the samples of a batch one after the other, if the clock prefers it to `engine`.

    What lies in the caches is then one sample's, and its images are cut into slabs, which those of a batch are not.
    """
    batch, whole = inputs[0].shape[0], engine.artifact.program
    if torch_calls(whole) or any(e.shape[:1] != (batch,) for e in whole.externals):
        return engine
    first = tuple(i[:1].contiguous() for i in inputs)
    try:
        captured = capture(model, first)
        one = compile_graph(captured, model, first, settings, engine.provenance, progress, any_length, levels)
        spec = one.artifact.program
        if torch_calls(spec) or [(1, *e.shape[1:]) for e in whole.externals] != [e.shape for e in spec.externals]:
            return engine
        spec = replace(spec, externals=whole.externals, turns=batch)
        other = Engine(Artifact(spec, one.artifact.layers, engine.provenance), engine.threads, settings.isa)
        error = check(other, model, inputs)
        check(other, model, _varied(inputs))
    except OpenworkError:  # a model that mixes its samples, or does not take one alone
        return engine
    return _faster(engine, _with_facts(other, {**other.provenance, name_of_error(other): error}))


def _faster(engine: Engine, other: Engine) -> Engine:
    """`other` if the clock prefers it, timed in turn."""
    times = [[min(e.time(2, 0)) for e in (engine, other)] for _ in range(5)]
    mine, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return other if theirs < mine else engine


def _half(progress: Callable[[int, int], None] | None, second: int) -> Callable[[int, int], None]:
    """Reports the first or the second half of two things to do."""
    return lambda done, total: progress(done + second * total, 2 * total) if progress else None


def _varied(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs whose samples differ, even if those of the example are all alike."""
    generator = torch.Generator().manual_seed(0)
    noise = (torch.rand(i.shape, generator=generator) for i in inputs)
    return tuple(
        i * (0.5 + n) if i.is_floating_point() else i.flatten().roll(1).view_as(i)
        for i, n in zip(inputs, noise, strict=True)
    )


def _checked_inputs(example_inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    inputs = tuple(example_inputs) if isinstance(example_inputs, list | tuple) else (example_inputs,)
    for i in inputs:
        if not isinstance(i, Tensor):
            raise UsageError(f"example_inputs hold a {type(i).__name__}; pass tensors")
    if not inputs or any(i.numel() == 0 for i in inputs):
        raise UsageError("example_inputs are empty; pass tensors with at least one sample")
    return inputs


def _tune(
    lowered: Lowered, threads: int, isa: str, effort: Effort, progress: Callable[[int, int], None]
) -> tuple[Any, list[dict[str, Any]]]:
    program, layers = search(lowered, threads, isa, effort, progress)
    return program, [_record(d, layer) for d, layer in zip(lowered.drafts, layers, strict=True)]


def _record(draft: Draft, layer: Layer) -> dict[str, Any]:
    """What `explain()` shows of a step besides its time."""
    w = draft.weights or draft.fixed
    record: dict[str, Any] = {
        "op": draft.node.op if w else draft.op,
        "shape": "x".join(map(str, draft.node.shape)),
        "why": layer.why,
    }
    if w:
        record |= {
            "taps": layer.taps,
            "weights": w.count,
            "nonzero": w.nonzero,
            "pixels": w.pixels,
            "tried": list(layer.tried),
        }
        if layer.multiply_adds is not None:
            record["multiply_adds"] = layer.multiply_adds
        if w.whole:
            record["type"] = "int8"
        if w.levels:
            record["levels"] = [int(np.count_nonzero(level.keep)) for level in w.levels]
    return record


def _with_facts(engine: Engine, facts: Mapping[str, Any]) -> Engine:
    """The same engine with its provenance completed."""
    engine.artifact = Artifact(engine.artifact.program, engine.artifact.layers, facts)
    return engine
