"""`openwork data`: which data sets there are, where they lie, and how to get one."""

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import plugins
from ..errors import UsageError
from ._options import Json
from ._output import progress_console, show
from ._tables import table

if TYPE_CHECKING:
    from rich.progress import TaskID

GOES_ON = True
"""After Ctrl-C what was finished lies in the data folder, and the same command goes on from there."""


class Action(StrEnum):
    """What to do."""

    list = "list"
    get = "get"
    path = "path"


def command(
    action: Annotated[Action, typer.Argument(help="list: what there is. get: download NAME. path: where data lie.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A data set, or 'weights'.")] = None,
    json: Json = False,
) -> None:
    """List data sets, download one, or print the folder that holds them (set it with OPENWORK_DATA)."""
    if (name is None) == (action is Action.get):
        raise UsageError(
            f"data {action}: " + ("name what to get: " + ", ".join(known()) if name is None else "takes no NAME")
        )
    {Action.list: _list, Action.get: lambda as_json: _get(str(name), as_json), Action.path: _path}[action](json)


def known() -> tuple[str, ...]:
    """Everything that may lie in the data folder."""
    return (*plugins.names("data"), "weights")


def root() -> Path:
    """The folder of data sets. The same rule as `openwork.data.data_root`, without its import of torch."""
    return Path(os.environ.get("OPENWORK_DATA") or "~/.cache/openwork/data").expanduser()


def state(name: str) -> dict[str, Any]:
    """Whether a data set is here, and what would bring it."""
    if name == "digits":
        return {"name": name, "there": True, "where": "comes with scikit-learn", "remedy": ""}
    # A set may lie in the folder of its collection: glue/stsb.
    folders = (root() / name, *root().glob(f"*/{name}"))
    folder = next((f for f in folders if f.is_dir() and any(one.suffix != ".part" for one in f.iterdir())), None)
    there, folder = folder is not None, folder or root() / name
    remedy = "" if there else f"openwork data get {name}"
    return {"name": name, "there": there, "where": str(folder), "remedy": remedy}


def _list(as_json: bool) -> None:
    states = [state(name) for name in known()]
    rows = [(s["name"], "yes" if s["there"] else "no", s["where"] if s["there"] else s["remedy"]) for s in states]
    show({"root": str(root()), "data": states}, table(("data", "here", "where, or how to get it"), rows), as_json)


def _path(as_json: bool) -> None:
    show({"root": str(root())}, str(root()), as_json)


def _get(name: str, as_json: bool) -> None:
    if name not in known():
        raise UsageError(plugins.unknown("data set", name, known()))
    if name != "digits":
        _download(name)
    found = state(name)
    show(found, f"{name}: {found['where']}", as_json)


def _download(name: str) -> None:
    """Fetch with a bar for each file."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from ..data._download import get

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=progress_console()) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(file: str, done: int, total: int | None) -> None:
            if file not in tasks:
                tasks[file] = bars.add_task(file, total=total)
            bars.update(tasks[file], completed=done, total=total)

        get(name, progress=progress)
