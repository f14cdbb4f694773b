"""What a reproduction is: rows, each a training that can be resumed, and a page about all of them.

Every row is a recipe on one model and one data set. Its run folder lies under `runs/reproduce/NAME/ROW`, so that an
interrupted reproduction goes on where it stopped, and rows that are finished are not trained again.
"""

import datetime
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from .. import plugins
from ..engine.machine import machine
from ..errors import UsageError
from ..files import write_text
from ..recipes.recipe import Recipe
from ..training.progress import Progress
from ..training.result import Result

ROOM = "reproductions"
FOLDER = Path("runs/reproduce")


@dataclass(frozen=True)
class Row:
    """One training of a reproduction."""

    name: str
    """Short, of letters, digits and dashes: the folder's name."""
    title: str
    """In words, for the table."""
    recipe: Recipe
    published: float | None = None
    """The figure of the paper that this row is held against, if there is one."""
    paper: str = ""
    """Where that figure stands: an arXiv number."""


class Reproduction(ABC):
    """A comparison; its class lies in the file that names it."""

    TITLE: ClassVar[str]
    MODEL: ClassVar[str]
    """Zoo model that every row starts from, with its own weights."""
    DATA: ClassVar[str]

    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """All rows, in the order of the table."""

    @abstractmethod
    def measure(self, results: Mapping[str, Result], inputs: Tensor, threads: int) -> dict[str, dict[str, Any]]:
        """Figures of each row besides its training: what must be measured side by side, in one run. What belongs to
        all rows stands under "". `inputs` is one example, [1, ...]."""

    @abstractmethod
    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        """Files about the document, by name: `page.md` and the pictures it shows."""

    @classmethod
    def name(cls) -> str:
        """The file's name."""
        return cls.__module__.rpartition(".")[2]


@dataclass(frozen=True)
class Order:
    """What is to be reproduced, and how."""

    rows: tuple[str, ...] | None = None
    """Names, `4x1*` for all that begin so; None: all."""
    folder: Path = FOLDER
    threads: int = 2
    epochs_scale: float = 1.0
    """Factor on the epochs of each phase, for trials; figures then say so."""
    command: str = ""
    model: str | None = None
    """Instead of the reproduction's own model; likewise `data`."""
    data: str | None = None


def find(name: str) -> Reproduction:
    """The reproduction called `name`."""
    return plugins.find(ROOM, name, Reproduction)()  # type: ignore[type-abstract]


def chosen(rows: Sequence[Row], wanted: Sequence[str] | None) -> list[Row]:
    """The rows that are wanted, in the order of the table; UsageError for a name that is none."""
    if wanted is None:
        return list(rows)
    names = [row.name for row in rows]
    hits: set[str] = set()
    for part in wanted:
        found = {name for name in names if name == part or (part.endswith("*") and name.startswith(part[:-1]))}
        if not found:
            raise UsageError(plugins.unknown("row", part, names))
        hits |= found
    return [row for row in rows if row.name in hits]


def reproduce(
    reproduction: Reproduction,
    order: Order,
    train: Callable[[Row, Path], Result],
    inputs: Tensor,
    progress: Progress,
) -> dict[str, Any]:
    """Train the rows that are wanted and not there yet, measure all of them, and write document, page and pictures.

    `train` makes a row's result in a folder; that of a finished folder is returned at once. `inputs` is one example.
    """
    rows = chosen(reproduction.rows(), order.rows)
    home = order.folder / reproduction.name()
    results: dict[str, Result] = {}
    for number, row in enumerate(rows, 1):
        progress.message(f"[{number}/{len(rows)}] {row.title}")
        results[row.name] = train(row, home / row.name)
    progress.message("measuring")
    figures = reproduction.measure(results, inputs, order.threads)
    document = {
        "name": reproduction.name(),
        "title": reproduction.TITLE,
        "command": order.command,
        "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": order.threads,
        "epochs_scale": order.epochs_scale,
        "model": order.model or reproduction.MODEL,
        "data": order.data or reproduction.DATA,
        "rows": [_record(row, results[row.name], figures.get(row.name, {})) for row in rows],
        **figures.get("", {}),
    }
    write_text(home / "document.json", json.dumps(document, indent=1) + "\n")
    for name, text in reproduction.page(document).items():
        write_text(home / name, text)
    return document


def _record(row: Row, result: Result, figures: Mapping[str, Any]) -> dict[str, Any]:
    schedule = row.recipe.schedule
    return {
        "name": row.name,
        "title": row.title,
        "paper": row.paper,
        "published": row.published,
        "seed": schedule.seed,
        "epochs": [schedule.dense_epochs, schedule.shape_epochs, schedule.retrain_epochs],
        "dense_accuracy": result.dense_accuracy,
        "accuracy": result.accuracy,
        "sparsity": result.sparsity,
        "weights": result.weights,
        "nonzero": result.nonzero,
        "bytes": sum(layer.bytes or 0 for layer in result.layers),
        "seconds": round(result.seconds, 1),
        **figures,
    }


def known(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Every row of every reproduction, with our figure where it was run: what `openwork reproduce --list` shows."""
    found = []
    for name in plugins.names(ROOM):
        reproduction = find(name)
        path = folder / name / "document.json"
        document = json.loads(path.read_text()) if path.is_file() else {"rows": []}
        ours = {row["name"]: row for row in document["rows"]}
        for row in reproduction.rows():
            mine = ours.get(row.name, {})
            figure = mine.get("accuracy")
            state = "not run" if figure is None else "run"
            if figure is not None and row.published is not None:
                state = "met" if figure >= row.published else "short"
            found.append(
                {
                    "name": f"{name}/{row.name}",
                    "title": row.title,
                    "paper": row.paper,
                    "published": row.published,
                    "ours": figure,
                    "state": state,
                    "command": f"openwork reproduce {name} --rows {row.name}",
                    "when": document.get("when") if mine else None,
                }
            )
    return found
