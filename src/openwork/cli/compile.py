"""`openwork compile`: an artifact from a model, or from the pruned weights of a run."""

import json as json_module
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import openwork

from ..errors import RunError, UsageError
from . import _tables as tables
from ._options import Json, Threads
from ._output import progress_console, show
from ._way import compiling, short_name, waiting

if TYPE_CHECKING:
    import torch


class Tune(StrEnum):
    """How long to search for the fastest kernels."""

    fast = "fast"
    thorough = "thorough"
    off = "off"


def command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|RUN_DIR", help="Zoo name, path/to/file.py:factory, or a finished run's folder."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact to write.")],
    batch: Annotated[int, typer.Option(min=1, help="Examples in one inference.")] = 1,
    weights: Annotated[Path | None, typer.Option(help="Weights to use, a .safetensors file.")] = None,
    input_shape: Annotated[
        str | None, typer.Option(help="Shape of one example, such as 3,32,32, where the model's file does not say it.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens or steps of a sequence, of models that take sequences.")
    ] = None,
    any_length: Annotated[
        bool, typer.Option("--any-length", help="Take shorter sequences too, of models with an attention mask.")
    ] = False,
    tune: Annotated[Tune, typer.Option(help="How long to search for the fastest kernels.")] = Tune.fast,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Compile MODEL, or the pruned model of RUN_DIR, into one file that runs without PyTorch."""
    spec, weights, provenance = _source(model, weights)
    built, example = _model(spec, weights, batch, input_shape, length)
    levels = [_model(spec, path, batch, input_shape, length)[0] for path in _levels(weights)]
    with compiling(progress_console()):
        engine = openwork.compile(
            built,
            example,
            threads=threads,
            tune=tune.value,
            any_length=any_length,
            levels=levels,
            name=short_name(spec),
            provenance=provenance,
        )
    engine.save(output)
    document = {
        "artifact": str(output),
        "bytes": output.stat().st_size,
        "inputs": [{"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in engine.inputs],
        "outputs": [{"name": s.name, "shape": list(s.shape), "dtype": s.dtype} for s in engine.outputs],
        "isa": engine.isa,
        "threads": engine.threads,
        "levels": engine.levels,
    }
    rows = [
        ("artifact", f"{output} ({tables.size(output.stat().st_size)})"),
        *(("input", f"{s.name} {tuple(s.shape)} {s.dtype}") for s in engine.inputs),
        *(("output", f"{s.name} {tuple(s.shape)} {s.dtype}") for s in engine.outputs),
        *([("levels", f"{engine.levels} nested networks")] if engine.levels > 1 else []),
        ("tuned for", f"{engine.isa}, {engine.threads} threads"),
    ]
    show(document, tables.facts(rows), json)


def _source(model: str, weights: Path | None) -> tuple[str, Path | None, dict[str, Any]]:
    """Model spec, weights and provenance; a run folder brings its own."""
    folder = Path(model)
    if not folder.is_dir():
        if len(folder.parts) > 1 and ":" not in model and not folder.exists():
            raise UsageError(
                f"there is no run folder {model}; give the folder that `openwork compress` wrote, or a model"
            )
        return model, weights, {"model": model}
    if weights is not None:
        raise UsageError(
            f"--weights {weights}: {folder} is a run folder and has weights of its own; name the model instead"
        )
    result = folder / "result.json"
    if not result.is_file():
        raise RunError(f"{folder} is not a finished run (no result.json); give the compress command again to finish it")
    try:
        found = json_module.loads(result.read_text())
        spec, final = found["model"], found["final"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{result} is damaged ({error}); run the compress command again in a new folder") from error
    provenance = {
        "model": spec,
        "recipe": found.get("recipe"),
        "data": found.get("data"),
        "run": str(folder),
        "accuracy": final.get("test_accuracy"),
        "sparsity": final.get("sparsity"),
    }
    return spec, folder / "model.safetensors", provenance


def _levels(weights: Path | None) -> list[Path]:
    """Weights of the sparser networks that a run has found inside its own, level 2 first."""
    if weights is None or weights.name != "model.safetensors":
        return []
    found = weights.parent.glob("model-level*.safetensors")
    return sorted(found, key=lambda path: int(path.stem.removeprefix("model-level")))


def _model(
    spec: str, weights: Path | None, batch: int, input_shape: str | None, length: int | None
) -> "tuple[torch.nn.Module, tuple[torch.Tensor, ...]]":
    if input_shape is not None and length is not None:
        raise UsageError("give one of --input-shape, for a model of one float32 input, and --length, for sequences")
    with waiting(progress_console(), "loading PyTorch"):
        import torch

        from .. import models
    torch.manual_seed(0)
    built = models.resolve(spec) if weights is None else models.resolve(spec, weights=weights)
    if input_shape is not None:
        return built.eval(), (torch.randn((batch, *_shape(input_shape))),)
    options = {} if length is None else {"length": length}
    return built.eval(), models.example_inputs(spec, batch, **options)


def _shape(text: str) -> tuple[int, ...]:
    """'3,32,32' as (3, 32, 32)."""
    try:
        found = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise UsageError(f"--input-shape {text}: write the sizes of one example without the batch, such as 3,32,32")
    return found
