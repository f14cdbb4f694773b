"""Arguments and options that several commands share, so that they are spelled and explained the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; default: the cores that this process may use.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Zoo name, or your own path/to/file.py:factory.")]
Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Compiled model, a .openwork file.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder that `openwork compress` wrote.")]
Repeats = Annotated[int, typer.Option(min=3, help="Rounds in which each engine is timed once.")]
