"""What a reproduction is: rows, each a training that can be resumed, and a page about all of them.

Every row is a recipe on one model and one data set. Its run folder lies under `runs/reproduce/NAME/ROW`, so that an
interrupted reproduction goes on where it stopped, and rows that are finished are not trained again. What was found lies
beside them: `document.json`, `page.md` and the pictures of the page. `publish` copies these three to where they are
kept for others; a source checkout keeps ours in docs/reproductions.
"""

import datetime
import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from .. import plugins
from ..engine.machine import machine
from ..errors import UsageError
from ..files import write_text
from ..recipes.recipe import Recipe
from ..recipes.schedule import PHASES
from ..training.progress import Progress
from ..training.result import Result
from . import _dense

ROOM = "reproductions"
FOLDER = Path("runs/reproduce")
KEPT = Path(__file__).parents[3] / "docs" / "reproductions"
"""Our own documents and pages, in a source checkout."""
_DOCUMENT = "document.json"
_CONDITIONS = ("epochs_scale", "model", "data")
"""What rows of one document have in common."""


@dataclass(frozen=True)
class Row:
    """One training of a reproduction."""

    name: str
    """Short, of letters, digits and dashes: the folder's name."""
    title: str
    """In words, for the table."""
    recipe: Recipe
    paper: str = ""
    """Where the published figures stand: an arXiv number."""
    published: float | None = None
    """Accuracy in the paper that this row is held against, in [0, 1]."""
    published_drop: float | None = None
    """Where the paper compares with its own dense network: accuracy that it loses."""
    published_rate: float | None = None
    """Weights of the paper's dense network for each one that it keeps."""
    published_storage: float | None = None
    """Bytes of the dense network's weights in float32 for each one of the paper's codes, indices left out."""
    quantization_drop: float | None = None
    """Accuracy that quantizing weights and activations may cost the pruned network in float32 of the same run."""
    bar: float | None = None
    """Accuracy that we ask for where no paper names one."""
    note: str = ""
    """How the paper's words were read, or what its figures leave out."""
    model: str | None = None
    """Zoo model, where it is not the reproduction's."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of the model: arguments of its `build`."""

    @property
    def digest(self) -> str:
        """Of what is trained: the recipe and its model. Fields that recipes come to have later leave it as it is."""
        recipe = self.recipe.model_dump(mode="json", exclude={"name"}, exclude_defaults=True)
        what = json.dumps([recipe, self.model, dict(self.options)], sort_keys=True)
        return hashlib.sha256(what.encode()).hexdigest()[:12]

    def state(self, ours: Mapping[str, Any]) -> str:
        """'met' if all that is asked for holds at once, else 'short'; 'run' if nothing is asked for. `ours` is the
        row of a document."""
        asked = [
            (self.published_rate, rate(ours)),
            (self.published, ours["accuracy"]),
            (self.bar, ours["accuracy"]),
            (None if self.published_drop is None else -self.published_drop, ours["accuracy"] - ours["dense_accuracy"]),
        ]
        if self.published_storage is not None:
            asked.append((self.published_storage, 4 * ours["weights"] / ours["storage"]["codes"]))
        if self.quantization_drop is not None:
            before = ours["quantized"]["float32"]["test_accuracy"]
            asked.append((-self.quantization_drop, ours["accuracy"] - before))
        demands = [found >= wanted for wanted, found in asked if wanted is not None]
        return ("met" if all(demands) else "short") if demands else "run"


class Reproduction(ABC):
    """A comparison; its class lies in the file that names it."""

    TITLE: ClassVar[str]
    MODEL: ClassVar[str]
    """Zoo model that rows start from, with its own weights, unless they say otherwise."""
    DATA: ClassVar[str]
    HOLDOUT: ClassVar[int] = 0
    """Training examples held out for validation."""
    TOGETHER: ClassVar[bool] = True
    """Whether rows are measured side by side, so that a document is of one run; else rows come to it one by one."""

    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """All rows, in the order of the table."""

    def measure(self, results: Mapping[str, Result], inputs: Tensor, threads: int) -> dict[str, dict[str, Any]]:
        """Figures of each row besides its training: what must be measured side by side, in one run. What belongs to
        all rows stands under "". `inputs` is one example, [1, ...]."""
        return {}

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
    """Train the rows that are wanted and not there yet, measure them, and write document, page and pictures.

    `train` makes a row's result in a folder; that of a finished folder is returned at once. `inputs` is one example.
    Rows that are not measured side by side are written one by one, beside those that the document has already.
    """
    rows = chosen(reproduction.rows(), order.rows)
    home = order.folder / reproduction.name()
    results: dict[str, Result] = {}
    for number, row in enumerate(rows, 1):
        progress.message(f"[{number}/{len(rows)}] {row.title}")
        _dense.begin(row, home, train)
        results[row.name] = train(row, home / row.name)
        if not reproduction.TOGETHER:
            write(reproduction, _document(reproduction, order, [row], results, inputs), home)
    if reproduction.TOGETHER:
        progress.message("measuring")
        write(reproduction, _document(reproduction, order, rows, results, inputs), home)
    return _read(home)


def write(reproduction: Reproduction, document: dict[str, Any], home: Path) -> None:
    """Document, page and pictures into `home`, together with the rows that lie there and are not in `document`."""
    there = _read(home)
    if not reproduction.TOGETHER and all(there.get(name) == document[name] for name in _CONDITIONS):
        found = {row["name"]: row for row in there["rows"]} | {row["name"]: row for row in document["rows"]}
        for before in there["rows"]:
            # Not trained again: these are of its training.
            if all(found[before["name"]][key] == before[key] for key in ("accuracy", "seconds")):
                found[before["name"]] |= {key: before[key] for key in ("command", "when", "processor", "threads")}
        document = {**document, "rows": [found[row.name] for row in reproduction.rows() if row.name in found]}
    here = {row["name"]: row for row in document["rows"]}
    document = {
        **document,
        "not_run": [row.name for row in reproduction.rows() if row.name not in here],
        "earlier": [row.name for row in reproduction.rows() if row.name in here and is_earlier(row, here[row.name])],
    }
    write_text(home / _DOCUMENT, json.dumps(document, indent=1) + "\n")
    for name, text in reproduction.page(document).items():
        write_text(home / name, text)


def publish(reproduction: Reproduction, document: dict[str, Any], folder: Path) -> Path:
    """Keep a document with its page and pictures in `folder/NAME` for others to see; UsageError for a trial."""
    refuse_trial(reproduction, document)
    write(reproduction, document, folder / reproduction.name())
    return folder / reproduction.name()


def refuse_trial(reproduction: Reproduction, found: Mapping[str, Any]) -> None:
    """UsageError if these conditions, or those of a document, are not the reproduction's own."""
    if is_trial(reproduction, found):
        raise UsageError("a trial is not published; run it without --epochs-scale, --model and --data")


def is_trial(reproduction: Reproduction, found: Mapping[str, Any]) -> bool:
    """Whether figures are not of the recipes, model and data that the rows are about."""
    return [found[name] for name in _CONDITIONS] != [1, reproduction.MODEL, reproduction.DATA]


def is_earlier(row: Row, ours: Mapping[str, Any]) -> bool:
    """Whether figures, those of a document's row, are of a recipe that the row had before."""
    return bool(ours.get("recipe") != row.digest)


def conditions(reproduction: Reproduction, order: Order) -> dict[str, Any]:
    """What a document says that its rows have in common."""
    return {
        "epochs_scale": order.epochs_scale,
        "model": order.model or reproduction.MODEL,
        "data": order.data or reproduction.DATA,
    }


def rate(row: Mapping[str, Any]) -> float:
    """Weights of the dense network for each one that is kept."""
    return float(row["weights"] / max(1, row["nonzero"]))


def _document(
    reproduction: Reproduction, order: Order, rows: Sequence[Row], results: Mapping[str, Result], inputs: Tensor
) -> dict[str, Any]:
    figures = reproduction.measure({row.name: results[row.name] for row in rows}, inputs, order.threads)
    about = {
        "command": order.command,
        "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": machine(),
        "threads": order.threads,
    }
    return {
        "name": reproduction.name(),
        "title": reproduction.TITLE,
        **about,
        **conditions(reproduction, order),
        "rows": [
            _record(row, results[row.name], figures.get(row.name, {}), about)
            | ({"state": "trial"} if is_trial(reproduction, conditions(reproduction, order)) else {})
            for row in rows
        ],
        **figures.get("", {}),
    }


def _record(row: Row, result: Result, figures: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    schedule, phases = row.recipe.schedule, Counter(line["phase"] for line in result.history)
    found = {
        "name": row.name,
        "title": row.title,
        "paper": row.paper,
        "published": row.published,
        "published_drop": row.published_drop,
        "published_rate": row.published_rate,
        "bar": row.bar,
        "note": row.note,
        "recipe": row.digest,
        "seed": schedule.seed,
        "epochs": [phases[phase] if phases else schedule.epochs(phase) for phase in PHASES],
        "dense_accuracy": result.dense_accuracy,
        "hardened": dict(result.hardened),
        **({"quantized": {name: dict(found) for name, found in result.quantized.items()}} if result.quantized else {}),
        "accuracy": result.accuracy,
        "sparsity": result.sparsity,
        "weights": result.weights,
        "nonzero": result.nonzero,
        "kept": {layer.name: round((1 - layer.sparsity) * math.prod(layer.shape)) for layer in result.layers},
        "bytes": sum(layer.bytes or 0 for layer in result.layers),
        "seconds": round(result.seconds, 1),
        "command": about["command"],
        "when": about["when"],
        "processor": about["machine"]["processor"],
        "threads": about["threads"],
        **figures,
    }
    return {**found, "state": row.state(found)}


def _read(home: Path) -> dict[str, Any]:
    path = home / _DOCUMENT
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": []}
    assert isinstance(found, dict)
    return found


def known(folder: Path = FOLDER, kept: Path = KEPT) -> list[dict[str, Any]]:
    """Every row of every reproduction with our figure: what `openwork reproduce --list` shows.

    Figures are those in `folder`, where a row was run here, else those of `kept`; those of trials are told as such.
    """
    return [
        _listed(reproduction, row, folder, kept)
        for reproduction in map(find, plugins.names(ROOM))
        for row in reproduction.rows()
    ]


def _listed(reproduction: Reproduction, row: Row, folder: Path, kept: Path) -> dict[str, Any]:
    name = reproduction.name()
    documents = [_read(home / name) for home in (folder, kept)]
    documents.sort(key=lambda d: bool(d["rows"]) and is_trial(reproduction, d))
    mine, document = next(
        ((ours, d) for d in documents for ours in d["rows"] if ours["name"] == row.name), (None, {"rows": []})
    )
    state = "not run"
    if mine is not None:
        state = "trial" if is_trial(reproduction, document) else row.state(mine)
    return {
        "name": f"{name}/{row.name}",
        "title": row.title,
        "paper": row.paper,
        "published": row.published,
        "published_drop": row.published_drop,
        "published_rate": row.published_rate,
        "bar": row.bar,
        "note": row.note,
        "ours": mine and mine["accuracy"],
        "our_drop": mine and mine["dense_accuracy"] - mine["accuracy"],
        "our_rate": mine and rate(mine),
        "state": state,
        "earlier_recipe": mine is not None and is_earlier(row, mine),
        "command": f"openwork reproduce {name} --rows {row.name}",
        "when": mine and mine.get("when", document.get("when")),
    }
