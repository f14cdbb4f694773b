"""`openwork bench`: an artifact beside other engines, in turn, in one run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import openwork

from .. import plugins
from ._options import Artifact, Json, Repeats, Threads, must_exist
from ._output import progress_console, show
from ._source import network
from ._way import split_names, waiting

if TYPE_CHECKING:
    from torch import nn


def command(
    artifact: Artifact,
    against: Annotated[str, typer.Option(help="Engines to compare with, such as pytorch,onnxruntime; or 'none'.")] = (
        "pytorch,onnxruntime"
    ),
    model: Annotated[
        str | None, typer.Option(help="The dense model to time too: zoo name, or path/to/file.py:factory.")
    ] = None,
    threads: Threads = None,
    repeats: Repeats = 30,
    json: Json = False,
) -> None:
    """Time ARTIFACT beside other engines on the same inputs and threads: median, spread and ratio of each."""
    must_exist(artifact)
    names = split_names(against)
    for name in names:
        plugins.module("engine.peers", name)
    with waiting(progress_console(), "timing"):
        engine = openwork.load(artifact, threads=threads)
        dense, compiled_from = _networks(model, artifact, engine.provenance.get("model")) if model else (None, None)
        found = openwork.bench(engine, names, dense, repeats=repeats, compiled_from=compiled_from)
    show(found.to_dict(), str(found), json)


def _networks(spec: str, artifact: Path, origin: Any) -> "tuple[nn.Module, nn.Module | None]":
    """The dense model, and the one with the run's weights where the artifact was compiled from it.

    An artifact may name a file of code; that is run only when the user names it too.
    """
    weights = artifact.parent / "model.safetensors"
    pruned = network(spec, weights) if spec == origin and weights.is_file() else None
    return network(spec, None), pruned
