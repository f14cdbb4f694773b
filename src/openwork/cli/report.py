"""`openwork report`: the page about a run."""

from pathlib import Path
from typing import Annotated

import typer

from ._options import Json, RunDir
from ._output import show


def command(
    run_dir: RunDir,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: report.html in RUN_DIR.")] = None,
    json: Json = False,
) -> None:
    """Write the page about the run in RUN_DIR: one HTML file that needs nothing else."""
    from ..report import write_report

    path = write_report(run_dir, output=output)
    show({"report": str(path), "bytes": path.stat().st_size}, f"wrote {path}", json)
