"""A run folder as one value: everything the page shows, and one sentence for everything that is not there.

The folder is laid out as docs/architecture.md says. A run that was interrupted, or never compiled or timed, lacks
files; the page says so instead of leaving a hole, so reading never fails on a missing file, only on a damaged one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ArtifactError, RunError

PHASES = ("dense", "shape", "retrain", "quantize")


@dataclass(frozen=True)
class Run:
    """What a run folder holds; a part that is missing is empty and named in `missing`."""

    folder: Path
    """The run folder."""
    recipe: str
    """The recipe as it was run, YAML."""
    environment: Mapping[str, Any]
    """Versions, CPU, threads, seed, command line."""
    epochs: tuple[Mapping[str, Any], ...]
    """One record an epoch, in order; keys are absent where they mean nothing."""
    result: Mapping[str, Any]
    """Accuracies, weights and layers at the end of the run."""
    bench: Mapping[str, Any]
    """Latencies of all engines, measured in turn."""
    steps: tuple[Mapping[str, Any], ...]
    """What the compiler chose for each step of the program, from `engine.explain()`."""
    provenance: Mapping[str, Any]
    """What the artifact says about itself."""
    artifact: Path | None
    """The compiled artifact."""
    weights: Mapping[str, Any]
    """Final weights by name, NumPy arrays of two or more dimensions."""
    quantization: Mapping[str, Any]
    """Figures of a quantized network, from `openwork quantize`."""
    missing: tuple[str, ...]
    """One sentence for every part that is not there, with what would make it."""


def read_run(folder: Path, bench: Any = None, engine: Any = None) -> Run:
    """Read `folder`; `bench` and `engine` stand in for bench.json and the artifact when the caller has them at hand.

    Raises RunError when there is no run in the folder or one of its files is damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"no run folder {folder}; give the folder that `openwork compress` wrote, such as runs/demo")
    missing: list[str] = []

    def part(name: str, remedy: str, parse: Callable[[Path], Any], empty: Any) -> Any:
        path = folder / name
        if not path.is_file():
            missing.append(f"{name} is not there: {remedy}")
            return empty
        return parse(path)

    quantized = folder / "quantization.json"
    quantization = _json(quantized) if quantized.is_file() else {}
    epochs = part("metrics.jsonl", "no epoch was finished", _lines, ())
    result = part("result.json", "the run did not finish; run the same compress command again to go on", _json, {})
    if not epochs and not result:
        raise RunError(f"{folder} holds no run (neither metrics.jsonl nor result.json); give the folder of a run")
    recipe = part("recipe.yaml", "the recipe of this run is unknown", Path.read_text, "")
    environment = part("environment.json", "versions and machine of this run are unknown", _json, {})
    weights = part("model.safetensors", "no final weights, so no pictures of masks", _arrays, {})
    if quantization:
        missing.clear()  # nothing was trained, and the figures of quantization repeat it
    if bench is None:
        timed = part("bench.json", "nothing was timed; `openwork bench` measures all engines in turn", _json, {})
    else:
        timed = as_dict(bench)
    artifact = next(iter(sorted(folder.glob("*.openwork"))), None)
    if engine is None:
        engine = _load(artifact, missing)
    return Run(
        folder=folder,
        recipe=recipe,
        environment=environment,
        epochs=tuple(epochs),
        result=result,
        bench=timed,
        steps=tuple(engine.explain().rows) if engine is not None else (),
        provenance=dict(engine.provenance or {}) if engine is not None else {},
        artifact=artifact,
        weights=weights,
        quantization=quantization,
        missing=tuple(missing),
    )


def as_dict(value: Any) -> Mapping[str, Any]:
    """A mapping from a mapping, or from an object with `to_dict`."""
    found = value.to_dict() if hasattr(value, "to_dict") else value
    return dict(found)


def _load(artifact: Path | None, missing: list[str]) -> Any:
    """The engine of the artifact, or None with the reason noted: a page without it is better than no page."""
    if artifact is None:
        missing.append("no .openwork artifact: `openwork compile` on this folder makes it")
        return None
    from ..engine.engine import load

    try:
        return load(artifact)
    except ArtifactError as error:
        missing.append(f"{artifact.name} cannot be read: {error}")
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise RunError(
            f"{path} is not JSON ({error}); restore the file, or start the run again in a new folder"
        ) from error
    if not isinstance(found, dict):
        raise RunError(f"{path} holds {type(found).__name__}, not an object; restore the file, or start the run again")
    return found


def _lines(path: Path) -> tuple[dict[str, Any], ...]:
    """One record a line. A last line that was cut off by a crash is left out: that epoch is repeated on resume."""
    lines = path.read_text().splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):
                break
            raise RunError(f"{path}, line {number}: not JSON ({error}); restore the file") from error
    return tuple(records)


def _arrays(path: Path) -> dict[str, Any]:
    """Weight matrices of the final model by name; vectors (biases, batch norm) are never constrained."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path} is not a whole safetensors file ({error}); run the compress command again") from error
    return {name: array for name, array in arrays.items() if array.ndim >= 2}
