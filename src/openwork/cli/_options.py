"""Arguments and options that several commands share, so that they are spelled and explained the same everywhere."""

import shlex
import stat
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads; default: the cores that this process may use.")]
Device = Annotated[str | None, typer.Option(help="Where to train: cpu, cuda, cuda:1; default: the CPU.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="Zoo name, or your own path/to/file.py:factory.")]
Artifact = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Compiled model, a .openwork file.")]
RunDir = Annotated[Path, typer.Argument(metavar="RUN_DIR", help="Folder that `openwork compress` wrote.")]
Level = Annotated[int, typer.Option(min=1, help="Which of the artifact's nested networks: 1 has all weights.")]
Repeats = Annotated[int, typer.Option(min=3, help="Rounds in which each engine is timed once.")]


def must_exist(artifact: Path) -> None:
    """UsageError if there is no such file. Commands ask before they judge options, which may depend on the artifact."""
    try:
        is_folder = stat.S_ISDIR(artifact.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        make = shlex.join(["openwork", "compile", "MODEL", "-o", str(artifact)])
        raise UsageError(f"there is no file {artifact}; give an artifact, or make it: {make}") from None
    except OSError:
        return  # loading it says what is wrong
    if is_folder:
        inside = ", ".join(map(str, sorted(artifact.glob("*.openwork")))) or "a .openwork file"
        raise UsageError(f"{artifact} is a folder; give an artifact: {inside}")
