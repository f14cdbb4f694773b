"""`openwork compress`: from a trained model to a pruned, compiled, timed one, in one run folder."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from . import _tables as tables
from ._options import Device, Json, Model, Repeats, Threads
from ._output import progress_console, show
from ._way import Order, Outcome, command_line, go, split_names

GOES_ON = True
"""After Ctrl-C what was finished lies in the run folder, and the same command goes on from there."""


def command(
    model: Model,
    recipe: Annotated[str, typer.Option(help="Built-in recipe, or the path of a YAML file.")],
    data: Annotated[str, typer.Option(help="Data set: a name, or your own path/to/file.py:factory.")],
    run_dir: Annotated[Path | None, typer.Option(help="Default: runs/MODEL-RECIPE.")] = None,
    threads: Threads = None,
    device: Device = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the recipe's seed.")] = None,
    epochs_scale: Annotated[
        float, typer.Option(min=0.0, help="Factor for the epochs of each phase, for quick trials.")
    ] = 1.0,
    holdout: Annotated[
        int | None, typer.Option(min=0, help="Training examples held out for validation; default: the data set's.")
    ] = None,
    against: Annotated[str, typer.Option(help="Engines to time beside, or 'none'.")] = "pytorch,onnxruntime",
    repeats: Repeats = 30,
    json: Json = False,
) -> None:
    """Prune MODEL as a recipe says, compile it, time it and write a report.

    Everything goes into the run folder. A run that was interrupted goes on when the same command is given again.
    """
    order = Order(
        model=model,
        recipe=recipe,
        data=data,
        run_dir=run_dir,
        threads=threads,
        device=device,
        seed=seed,
        epochs_scale=epochs_scale,
        against=split_names(against),
        repeats=repeats,
        command=command_line(),
        holdout=holdout,
    )
    outcome = go(order, progress_console())
    show(outcome.to_dict(), closing(outcome), json)


def closing(outcome: Outcome) -> Group:
    """What a person wants to know at the end."""
    result, bench = outcome.result, outcome.bench
    rows = [
        ("test accuracy", tables.percent(result.dense_accuracy), tables.percent(result.accuracy)),
        ("weights", f"{result.weights:,}", f"{result.nonzero:,} ({tables.percent(result.sparsity, 1)} zeros)"),
        ("file", tables.size(outcome.dense_bytes), tables.size(outcome.artifact.stat().st_size)),
    ]
    ours, *others = bench.sides
    latency = [(side.name, tables.time(side.median_us), f"{side.ratio:.2f}x") for side in (ours, *others)]
    where = [
        ("artifact", str(outcome.artifact)),
        ("report", str(outcome.report)),
        *(("note", note) for note in (*outcome.notes, *bench.notes)),
    ]
    return Group(
        tables.table(("", "before", "after"), rows, right=(1, 2)),
        tables.table(("latency", "median", "against Openwork"), latency, right=(1, 2)),
        tables.facts(where),
    )
