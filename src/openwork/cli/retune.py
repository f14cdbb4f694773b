"""`openwork retune`: fit an artifact to this machine and a number of threads."""

from pathlib import Path
from typing import Annotated

import typer

import openwork

from ._options import Artifact, Json, Threads, must_exist
from ._output import show


def command(
    artifact: Artifact,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Where to write it; default: over it.")] = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Time the kernels of ARTIFACT again, on this machine with these threads, and keep the fastest. Needs no model."""
    must_exist(artifact)
    engine = openwork.load(artifact, threads=threads, retune=True)
    where = output or artifact
    engine.save(where)
    document = {"artifact": str(where), "isa": engine.isa, "threads": engine.threads, "cpu": engine.provenance["cpu"]}
    show(document, f"wrote {where}, fitted to {engine.isa} and {engine.threads} threads", json)
