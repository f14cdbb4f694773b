"""`openwork compile`: an artifact from a model, or from the pruned weights of a run."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import openwork

from . import _tables as tables
from ._options import Json, Threads
from ._output import progress_console, show
from ._source import built, source
from ._way import compiling, short_name


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
    spec, weights, provenance = source(model, weights)
    network, example = built(spec, weights, batch, input_shape, length)
    levels = [built(spec, path, batch, input_shape, length)[0] for path in _levels(weights)]
    with compiling(progress_console()):
        engine = openwork.compile(
            network,
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


def _levels(weights: Path | None) -> list[Path]:
    """Weights of the sparser networks that a run has found inside its own, level 2 first."""
    if weights is None or weights.name != "model.safetensors":
        return []
    found = weights.parent.glob("model-level*.safetensors")
    return sorted(found, key=lambda path: int(path.stem.removeprefix("model-level")))
