"""Load an artifact and run it: NumPy in, NumPy out. Torch tensors are taken too, torch is imported only for them."""

import os
import statistics
import time
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EngineError, OpenworkNotice
from ..formats import artifact as files
from ..formats.artifact import Artifact
from ..formats.program import Array, TensorSpec, TorchCall, torch_calls
from .buffers import allocate, checked, filled, seen_natively
from .explain import Explanation
from .forks import ForkSafeLock
from .lengths import cut, padded
from .machine import cores, notices, other_processor, processor
from .native import build
from .retune import retune

MAX_THREADS = 1024


def load(
    path: str | os.PathLike[str], threads: int | None = None, isa: str = "auto", *, retune: bool = False
) -> "Engine":
    """Load an artifact file.

    A file that was tuned on another processor runs here with the same results, and an `OpenworkNotice` says so.

    Args:
        path: a file written by `Engine.save`.
        threads: how many threads one inference may use; default: the cores this process may run on.
        isa: instruction set to use, for tests and comparisons; default: the best that this CPU has.
        retune: fit it to this machine and these threads first, as `Engine.retune` does.

    Raises:
        ArtifactError: the file is missing, cut off, damaged, or of another version.

    Example:
        >>> import numpy, openwork
        >>> engine = openwork.load("lenet5.openwork")           # doctest: +SKIP
        >>> engine(numpy.zeros((1, 1, 28, 28), "float32"))       # doctest: +SKIP
    """
    engine = Engine(files.load(Path(path)), threads, isa)
    if retune:
        return engine.retune()
    if text := other_processor(engine.provenance):
        warnings.warn(f"{path} was {text}", OpenworkNotice, stacklevel=2)
    return engine


def checked_threads(threads: int | None) -> int:
    """`threads`, or all cores for None; `EngineError` unless it is a number that an engine can use."""
    if threads is None:
        return cores()
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise EngineError(f"threads={threads!r} is not a whole number in 1..{MAX_THREADS}")
    return threads


class Engine:
    """A compiled model. Calls are serialized by a lock inside; use one engine a thread to run in parallel."""

    def __init__(self, artifact: Artifact, threads: int | None = None, isa: str = "auto") -> None:
        self.artifact = artifact
        self._spec = artifact.program
        self._native = build(self._spec, checked_threads(threads), isa)
        self._lock = ForkSafeLock()
        externals = self._spec.externals
        self._all_floats = all(e.dtype == "float32" for e in externals)
        self._inputs, self._outputs = (
            tuple(externals[i] for i in places) for places in (self._spec.inputs, self._spec.outputs)
        )
        self._torch: Any = None
        if torch_calls(self._spec):
            from .torch_calls import TorchRunner

            self._torch = TorchRunner(self._spec)
        # what PyTorch made may be a view of an input or a constant, and a model may return its input
        self._shared = self._torch is not None or not set(self._spec.inputs).isdisjoint(self._spec.outputs)

    # ---- facts ----

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and type of each input; the first axis is the batch that one native run takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Name, shape and type of each output."""
        return self._outputs

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What the artifact says of its origin: model, recipe, accuracy, versions."""
        return self.artifact.provenance

    @property
    def threads(self) -> int:
        """Threads of one inference."""
        return int(self._native.threads)

    @property
    def isa(self) -> str:
        """Instruction set of the kernels in use."""
        return str(self._native.isa)

    @property
    def precision(self) -> str:
        """What layers compute in: 'int8' if some of them do, else 'fp32'."""
        return "int8" if "int8" in self.provenance else "fp32"

    @property
    def levels(self) -> int:
        """Nested networks that the weights hold, each with fewer of them than the one before; 1 for most models."""
        return int(self._native.levels)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is different here from where the artifact was tuned, and other reasons why it may not be at its best."""
        return tuple(notices(self.provenance, self.isa, self.threads))

    @property
    def nbytes(self) -> int:
        """Bytes of the artifact file."""
        return len(files.to_bytes(self.artifact))

    def __repr__(self) -> str:
        shapes = ", ".join(str(i.shape) for i in self.inputs)
        return f"Engine(inputs {shapes}, {len(self._spec.steps)} steps, {self.isa}, {self.threads} threads)"

    # ---- running ----

    def __call__(self, *inputs: Any, level: int = 1) -> Any:
        """Run the model.

        Args:
            inputs: one array or tensor for each model input, `[batch, ...]`, of the type that `inputs` names (whole
                numbers may come in any type that holds them). Any batch works: it is run in pieces of the compiled
                batch, the last one filled up with zeros; of no samples the outputs are empty. Sequences may be shorter
                than compiled if that was asked for (`any_length`).
            level: which of the nested networks runs, 1 (all weights) to `levels`; changing it costs nothing.

        Returns:
            An array (a tensor if the first input was one), or a tuple of them if the model has several outputs.

        Raises:
            EngineError: wrong number of inputs, shape or type; no such level.
        """
        self._check_level(level)
        lengths = self._spec.lengths
        varying = lengths.inputs if lengths else ()
        given = zip(self.inputs, self._counted(inputs), strict=True)
        arrays = [checked(spec, value, i in varying) for i, (spec, value) in enumerate(given)]
        arrays, length = padded(lengths, arrays) if lengths else (arrays, 0)
        fits = all(a.shape == spec.shape for a, spec in zip(arrays, self.inputs, strict=True))
        results = self._run(arrays, level) if fits else self._run_pieces(arrays, level)
        results = cut(lengths, results, length) if lengths else results
        if not isinstance(inputs[0], np.ndarray):
            import torch

            tensors = [torch.from_numpy(r) for r in results]
            return tensors[0] if len(tensors) == 1 else tuple(tensors)
        return results[0] if len(results) == 1 else tuple(results)

    def _run_pieces(self, arrays: list[Array], level: int) -> list[Array]:
        """Another batch than the compiled one, in pieces of that."""
        sizes = {spec.shape[:1] for spec in (*self.inputs, *self.outputs)}
        if len(sizes) > 1 or sizes == {()}:
            shapes = ", ".join(str(spec.shape) for spec in (*self.inputs, *self.outputs))
            raise EngineError(f"inputs and outputs {shapes} share no batch axis: only the compiled shapes run")
        if len({len(a) for a in arrays}) > 1:
            raise EngineError(f"inputs have different batch sizes: {[len(a) for a in arrays]}")
        batch, piece = len(arrays[0]), self.inputs[0].shape[0]
        if not batch:
            return [np.empty((0, *spec.shape[1:]), spec.dtype) for spec in self.outputs]
        parts = [self._run([filled(a[i : i + piece], piece) for a in arrays], level) for i in range(0, batch, piece)]
        return [np.concatenate(outs)[:batch] for outs in zip(*parts, strict=True)]

    def _run(self, arrays: list[Array], level: int = 1) -> list[Array]:
        buffers = allocate(self._spec.externals, dict(zip(self._spec.inputs, arrays, strict=True)))
        # values of one run stay in the arena, and in the PyTorch runner, from segment to segment
        with self._lock:
            self._run_segments(buffers, level)
        return [buffers[i].copy() if self._shared else buffers[i] for i in self._spec.outputs]

    def _run_segments(self, buffers: list[Array], level: int) -> None:
        try:
            for segment in self._spec.segments:
                if segment.calls:
                    self._torch.run(segment.calls, buffers)
                else:
                    seen = buffers if self._all_floats else seen_natively(self._spec.externals, buffers)
                    self._native.run(segment.begin, segment.end, seen, level - 1)
        except IndexError as error:  # a token that is not in the vocabulary
            raise EngineError(str(error)) from error
        except (MemoryError, RuntimeError) as error:  # the native library has no thread or no memory left
            raise EngineError(f"cannot run with {self.threads} threads: {error or 'out of memory'}") from error
        finally:
            if self._torch:
                self._torch.forget()

    def _check_level(self, level: int) -> None:
        if not 1 <= level <= self.levels:
            raise EngineError(f"level={level!r} is not in 1..{self.levels}: compile with `levels` to have more")

    def _counted(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(inputs) != len(self.inputs):
            raise EngineError(
                f"got {len(inputs)} inputs, the model takes {len(self.inputs)}: {[i.name for i in self.inputs]}"
            )
        return inputs

    # ---- files, measurements, reasons ----

    def save(self, path: str | os.PathLike[str]) -> int:
        """Write the artifact, whole or not at all; returns its bytes."""
        return files.save(self.artifact, Path(path))

    def retune(self) -> "Engine":
        """Time the tiles and thread splits of every layer on this machine, keep the fastest, and return the engine.

        For an artifact that comes from another processor, or runs with other threads than it was tuned for. Results
        stay the same. How weights are packed stays too; that takes the model: `openwork.compile`. `save` keeps it.
        """
        with self._lock:
            found = retune(self._spec, self._native)
            steps, layers = list(self._spec.steps), [dict(layer) for layer in self.artifact.layers]
            for at, new in found.items():
                steps[at] = new.step
                if at < len(layers):
                    layers[at] |= {"tried": list(new.tried), "why": f"{layers[at].get('why', '')}; retuned"}
            facts = {
                **self.provenance,
                "cpu": processor(),
                "isa": self.isa,
                "tuned": {"effort": "retuned", "threads": self.threads},
            }
            self._spec = replace(self._spec, steps=tuple(steps))
            self.artifact = Artifact(self._spec, tuple(layers), facts)
        return self

    def time(self, repeats: int = 100, warmup: int = 10, level: int = 1) -> list[float]:
        """Seconds of each of `repeats` calls on zeros, after `warmup` calls."""
        self._check_level(level)
        inputs = [np.zeros(i.shape, i.dtype) for i in self.inputs]
        seconds = []
        for i in range(warmup + repeats):
            begin = time.perf_counter()
            self._run(inputs, level)
            if i >= warmup:
                seconds.append(time.perf_counter() - begin)
        return seconds

    def explain(self, repeats: int = 30, level: int = 1) -> Explanation:
        """Which kernel runs each layer, how fast, what else was tried and why it lost. Times are measured now."""
        self._check_level(level)
        if repeats < 1:
            raise EngineError(f"repeats={repeats} is too few; measure at least once")
        medians: list[float] = []
        if len(self._native):
            buffers = [np.zeros(e.shape, np.float32) for e in self._spec.externals]
            with self._lock:
                timed = self._native.profile(repeats, buffers, level - 1)
            medians = [1e6 * self._spec.turns * statistics.median(column) for column in zip(*timed, strict=True)]
        peak = _peak(self.isa) * self.threads
        rows: list[dict[str, Any]] = []
        for segment in self._spec.segments:
            rows += [self._row(i, medians[i], peak, level) for i in range(segment.begin, segment.end)]
            rows += [_torch_row(call) for call in segment.calls]
        totals = {
            "microseconds": round(sum(medians), 1),
            "steps": len(rows),
            "threads": self.threads,
            "isa": self.isa,
            "peak_gflops": round(peak / 1e9, 1),
        }
        if whole := sum(row.get("type") == "int8" for row in rows):
            totals["int8_layers"] = whole
        if self._spec.turns > 1:
            totals["turns"] = self._spec.turns
        if self.levels > 1:
            totals["level"] = level
        return Explanation(rows, totals)

    def _layer(self, at: int, level: int) -> Mapping[str, Any]:
        """What is known of a step, as far as it goes for a level."""
        layer = self.artifact.layers[at] if at < len(self.artifact.layers) else {}
        if level == 1 or "levels" not in layer:
            return layer
        arrays, places = self._spec.steps[at].arrays, slice(level - 2, level - 1)
        ends = arrays["level_end"].reshape(self.levels - 1, -1)[places]
        taps = int((ends - arrays["start"][:-1]).sum()) if "start" in arrays else layer["taps"]
        return {**layer, "nonzero": layer["levels"][level - 2], "taps": taps}

    def _row(self, at: int, microseconds: float, peak: float, level: int) -> dict[str, Any]:
        layer = self._layer(at, level)
        turns = self._spec.turns
        useful = (layer.get("nonzero") or 0) * (layer.get("pixels") or 0) * turns
        flops, done = 2.0 * useful, layer.get("multiply_adds", useful // turns) * turns
        weights, nonzero = layer.get("weights"), layer.get("nonzero")
        return {
            "name": self._spec.steps[at].name,
            "op": layer.get("op", self._spec.steps[at].op),
            "shape": layer.get("shape", ""),
            "taps": layer.get("taps"),
            "weights": weights,
            "nonzero": nonzero,
            "sparsity": 1 - nonzero / weights if weights else None,
            "kernel": self._native.kernel_name(at),
            "microseconds": round(microseconds, 2),
            "gflops": round(flops / microseconds / 1e3, 2) if flops and microseconds else None,
            "multiply_adds": done or None,
            "type": layer.get("type", "float32"),
            "share_of_peak": round(2.0 * done / (microseconds * 1e-6) / peak, 4)
            if flops and peak and microseconds and "type" not in layer
            else None,
            "tried": list(layer.get("tried", [])),
            "why": str(layer.get("why", "")),
        }


def _torch_row(call: TorchCall) -> dict[str, Any]:
    empty = ("taps", "weights", "nonzero", "sparsity", "microseconds", "gflops", "multiply_adds", "share_of_peak")
    return {
        "name": call.name, "op": "torch", "shape": "", "kernel": call.target, "tried": [], **dict.fromkeys(empty),
        "why": f"left to PyTorch: {call.target} has no native form here",
    }  # fmt: skip


_PEAKS: dict[str, float] = {}


def _peak(isa: str) -> float:
    """Multiply-add peak of one core, measured once a process; floating-point operations a second."""
    if isa not in _PEAKS:
        from . import _native

        _PEAKS[isa] = float(_native.fma_peak(isa))
    return _PEAKS[isa]
