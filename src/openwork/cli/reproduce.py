"""`openwork reproduce`: run a comparison for real, published or our own, and write its page."""

from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.table import Table

from .. import plugins
from ..errors import UsageError
from . import _tables as tables
from ._options import Device, Json
from ._output import progress_console, show
from ._way import adapted, command_line, split_names, waiting

GOES_ON = True
"""After Ctrl-C what was finished lies in the run folders, and the same command goes on from there."""


def command(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Which comparison; see --list.")] = None,
    rows: Annotated[
        str | None, typer.Option(help="Rows a,b of it; a* takes all that begin with a. Default: all.")
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="Name every row with its figure and state; run nothing.")
    ] = False,
    folder: Annotated[Path, typer.Option(help="Where runs and pages lie.")] = Path("runs/reproduce"),
    threads: Annotated[int, typer.Option(min=1, help="Threads of training and of every engine.")] = 2,
    device: Device = None,
    epochs_scale: Annotated[
        float, typer.Option(min=0.0, help="Factor for the epochs of each phase, for quick trials.")
    ] = 1.0,
    model: Annotated[str | None, typer.Option(help="Instead of the comparison's own model.")] = None,
    data: Annotated[str | None, typer.Option(help="Instead of the comparison's own data.")] = None,
    publish: Annotated[
        Path | None, typer.Option(help="Also keep document, page and pictures in this folder, as docs/reproductions.")
    ] = None,
    json: Json = False,
) -> None:
    """Train every row of the comparison NAME, measure all of them side by side, and write a page.

    Rows that are finished are not trained again, and an interrupted one goes on after its last epoch. Command and
    figures are kept in FOLDER/NAME/document.json, row by row where rows are not measured side by side.
    """
    console = progress_console()
    with waiting(console, "loading PyTorch"):
        from .. import data as data_room
        from .. import models
        from ..reproductions import base
        from ..training.compress import compress
        from ..training.device import resolve
        from ..training.result import Result
    if list_:
        found = base.known(folder)
        show({"rows": found}, _listed(found), json)
        return
    if name is None:
        raise UsageError(f"name a comparison ({', '.join(plugins.names(base.ROOM))}), or ask for --list")
    reproduction = base.find(name)
    # Its own model and data, said or not, are those of its rows, with what they hold out and their options.
    model = None if model == reproduction.MODEL else model
    data = None if data == reproduction.DATA else data
    order = base.Order(
        rows=None if rows is None else split_names(rows),
        folder=folder,
        threads=threads,
        epochs_scale=epochs_scale,
        command=command_line(),
        model=model,
        data=data,
    )
    base.chosen(reproduction.rows(), order.rows)
    where = None if device is None else resolve(device)
    if publish is not None:
        base.refuse_trial(reproduction, base.conditions(reproduction, order))
    held_out = {"holdout": reproduction.HOLDOUT} if reproduction.HOLDOUT and data is None else {}
    examples = data_room.resolve(data or reproduction.DATA, **held_out)

    from ._progress import Bars

    with Bars(console) as bars:

        def train(row: base.Row, run_dir: Path) -> Result:
            import torch

            recipe = adapted(row.recipe, None, epochs_scale)
            torch.manual_seed(recipe.schedule.seed)
            spec, options = (model, {}) if model else (row.model or reproduction.MODEL, dict(row.options))
            return compress(
                models.resolve(spec, **options),
                recipe,
                examples,
                run_dir,
                threads=threads,
                device=where,
                progress=bars,
                model_name=spec,
            )

        document = base.reproduce(reproduction, order, train, examples.example_input, bars)
    home = folder / reproduction.name()
    if publish is not None:
        home = base.publish(reproduction, document, publish)
    show(document, _closing(document, home), json)


def _listed(rows: list[dict[str, Any]]) -> Group:
    """A table for each reproduction, with the columns that it has something in."""
    found: defaultdict[str, list[tuple[str, ...]]] = defaultdict(list)
    for r in rows:
        reproduction, _, name = r["name"].partition("/")
        ours = _figure(r["ours"], None if r["published_drop"] is None else r["our_drop"], r["our_rate"])
        published = _figure(r["published"], r["published_drop"], r["published_rate"])
        state = r["state"] + ", earlier recipe" * r["earlier_recipe"]
        found[reproduction].append((name, r["title"], r["paper"], published, ours, state, (r["when"] or "")[:10]))
    return Group(*(_one_listed(name, lines) for name, lines in found.items()))


def _one_listed(name: str, lines: list[tuple[str, ...]]) -> Table:
    head = ("row", "what", "paper", "published", "ours", "state", "when")
    filled = [i for i in range(len(head)) if any(line[i] for line in lines)]
    right = [at for at, i in enumerate(filled) if head[i] in ("published", "ours")]
    whole = [at for at, i in enumerate(filled) if head[i] in ("row", "state", "when")]
    cells = ([line[i] for i in filled] for line in lines)
    return tables.table([head[i] for i in filled], cells, title=name, right=right, whole=whole)


def _figure(accuracy: float | None, drop: float | None, rate: float | None) -> str:
    """Accuracy, or what of it is lost, and how many times smaller."""
    parts = [tables.percent(accuracy)] if accuracy is not None else []
    parts += [f"{100 * -drop:+.2f} points"] if drop is not None and not parts else []
    parts += [f"{rate:.4g}x"] if rate is not None else []
    return ", ".join(parts)


def _closing(document: dict[str, Any], where: Path) -> Group:
    lines = [
        (r["title"], tables.percent(r["accuracy"]), tables.percent(r["sparsity"], 1), tables.size(r["bytes"]))
        for r in document["rows"]
    ]
    table = tables.table(("row", "accuracy", "zeros", "weights"), lines, right=(1, 2, 3))
    return Group(table, tables.facts([("page", str(where / "page.md")), ("figures", str(where / "document.json"))]))
