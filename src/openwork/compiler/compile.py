"""`openwork.compile`: capture, optimize, lower, tune, check against PyTorch, and hand over an engine."""

import platform
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..engine.engine import Engine, default_threads
from ..errors import CompileError, UsageError
from ..formats.artifact import Artifact
from .capture import capture
from .lower import Draft, Lowered, lower
from .optimize import optimize
from .tune import Effort, Layer
from .tune import tune as search

TOLERANCE = 1e-3
"""Largest error against PyTorch, relative to the largest output, that is not a bug."""


def compile(
    model: nn.Module,
    example_inputs: Tensor | tuple[Tensor, ...],
    *,
    dtype: Literal["float32"] = "float32",
    threads: int | None = None,
    tune: Effort = "fast",
    isa: str = "auto",
    name: str | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Engine:
    """Compile a model for this machine's CPU.

    Args:
        model: any module that `torch.export` captures; it is compiled as in `model.eval()`.
        example_inputs: float32 tensors `[batch, ...]`; the program is laid out for their shapes.
        dtype: element type of the engine.
        threads: threads of one inference; default: the cores this process may use.
        tune: 'fast' times a few dozen candidates a layer, 'thorough' searches longer, 'off' trusts the cost model.
        isa: instruction set, for comparisons; default: the best of this CPU.
        name: what to call the model in reports; default: its class.
        provenance: JSON values to keep in the artifact.
        progress: called with (steps done, steps in all) while tuning.

    Returns:
        An engine whose outputs were checked against the model on the example inputs. Its `provenance` holds the error.

    Raises:
        CaptureError: `torch.export` cannot capture the model.
        ModelError: weights are NaN, infinite or empty.
        CompileError: the engine's outputs differ from the model's.

    Example:
        >>> import torch, openwork
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
        >>> engine = openwork.compile(model, torch.randn(1, 3, 16, 16), threads=1, tune="off")
        >>> engine(torch.randn(1, 3, 16, 16)).shape
        torch.Size([1, 8, 16, 16])
    """
    if dtype != "float32":
        raise UsageError(f"dtype={dtype!r} is not available; this engine computes in 'float32'")
    if tune not in ("off", "fast", "thorough"):
        raise UsageError(f"tune={tune!r} is not one of 'off', 'fast', 'thorough'")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    if not inputs or any(i.numel() == 0 for i in inputs):
        raise UsageError("example_inputs are empty; pass float32 tensors with at least one sample")
    threads = default_threads() if threads is None else threads
    graph = optimize(capture(model, inputs))
    program, layers = _tune(lower(graph), threads, isa, tune, progress or (lambda done, total: None))
    facts = {
        **(provenance or {}),
        "name": name or type(model).__name__,
        "torch": torch.__version__,
        "cpu": platform.processor() or platform.machine(),
        "tuned": {"effort": tune, "threads": threads},
    }
    engine = Engine(Artifact(program, tuple(layers), facts), threads, isa)
    error = check(engine, model, inputs)
    return _with_facts(engine, {**facts, "isa": engine.isa, "max_relative_error": error})


def _tune(
    lowered: Lowered, threads: int, isa: str, effort: Effort, progress: Callable[[int, int], None]
) -> tuple[Any, list[dict[str, Any]]]:
    program, layers = search(lowered, threads, isa, effort, progress)
    return program, [_record(d, layer) for d, layer in zip(lowered.drafts, layers, strict=True)]


def _record(draft: Draft, layer: Layer) -> dict[str, Any]:
    """What `explain()` shows of a step besides its time."""
    record: dict[str, Any] = {
        "op": draft.node.op if draft.weights else draft.op,
        "shape": "x".join(map(str, draft.node.shape)),
        "why": layer.why,
    }
    if draft.weights and layer.choice:
        w = draft.weights
        record |= {
            "taps": layer.taps,
            "weights": int(w.matrix.size),
            "nonzero": int(np.count_nonzero(w.matrix)),
            "pixels": w.pixels,
            "tried": list(layer.tried),
        }
    return record


def check(engine: Engine, model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Largest error of the engine on `inputs`, relative to the largest output; `CompileError` above the tolerance."""
    training = model.training
    model.eval()
    with torch.no_grad():
        expected = model(*inputs)
    model.train(training)
    wanted = [expected] if isinstance(expected, Tensor) else list(expected)
    got = engine(*inputs)
    worst = 0.0
    for ours, theirs in zip([got] if isinstance(got, Tensor) else got, wanted, strict=True):
        scale = float(theirs.abs().max()) or 1.0
        worst = max(worst, float((ours - theirs).abs().max()) / scale)
    if not worst <= TOLERANCE:
        raise CompileError(
            f"the engine's outputs differ from PyTorch's by {worst:.2g} of the largest output (limit {TOLERANCE}); "
            "please report this model"
        )
    return worst


def _with_facts(engine: Engine, facts: Mapping[str, Any]) -> Engine:
    """The same engine with its provenance completed."""
    engine.artifact = Artifact(engine.artifact.program, engine.artifact.layers, facts)
    return engine
