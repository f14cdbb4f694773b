"""`openwork bench`: an artifact beside other engines, in turn, in one run."""

from typing import Annotated, Any

import typer

import openwork

from ._options import Artifact, Json, Repeats, Threads
from ._output import progress_console, show
from ._way import split_names, waiting


def command(
    artifact: Artifact,
    against: Annotated[str, typer.Option(help="Engines to compare with, such as pytorch,onnxruntime; or 'none'.")] = (
        "pytorch,onnxruntime"
    ),
    model: Annotated[
        str | None, typer.Option(help="Dense baseline to time too: zoo name, or path/to/file.py:factory.")
    ] = None,
    threads: Threads = None,
    repeats: Repeats = 30,
    json: Json = False,
) -> None:
    """Time ARTIFACT beside other engines on the same inputs and threads: median, spread and ratio of each."""
    with waiting(progress_console(), "timing"):
        found = openwork.bench(
            artifact, split_names(against), _dense(model) if model else None, threads=threads, repeats=repeats
        )
    show(found.to_dict(), str(found), json)


def _dense(spec: str) -> Any:
    from .. import models

    return models.resolve(spec)
