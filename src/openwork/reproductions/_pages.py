"""What pages of reproductions are made of: tables in Markdown, and figures in words."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .base import rate


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]


def beside_papers(
    rows: Iterable[Mapping[str, Any]],
    head: Sequence[str] = (),
    cells: Callable[[Mapping[str, Any]], Sequence[str]] = lambda row: (),
) -> list[str]:
    """The table of rows beside what is published; `head` and `cells` are more columns before the state."""
    lines = [
        (
            row["title"],
            paper(row),
            published(row),
            ours(row),
            f"{row['dense_accuracy']:.2%}",
            after_the_cut(row),
            *cells(row),
            row["state"],
        )
        for row in rows
    ]
    return table(("row", "paper", "published", "ours", "dense", "right after the cut", *head, "state"), lines)


def remarks(document: Mapping[str, Any]) -> list[str]:
    """What to know before reading the figures: that they are of a trial, and which rows are not there or are not what
    the command would train now."""
    scale, absent, earlier = document["epochs_scale"], document.get("not_run", ()), document.get("earlier", ())
    found = [f"Epochs were scaled by {scale:g}: a trial, no figure to quote."] if scale != 1 else []
    if absent:
        found.append(f"Not run yet: {', '.join(absent)}.")
    if earlier:
        found.append(f"Figures of an earlier recipe, to be run again: {', '.join(earlier)}.")
    return [line for text in found for line in ("", text)]


def paper(row: Mapping[str, Any]) -> str:
    """A link to where the published figures stand."""
    return f"[{row['paper']}](https://arxiv.org/abs/{row['paper']})" if row["paper"] else ""


def published(row: Mapping[str, Any]) -> str:
    """What the row is held against."""
    parts = []
    if row["published_rate"] is not None:
        parts.append(f"{row['published_rate']:.4g}x")
    if row["published"] is not None:
        parts.append(f"{row['published']:.2%}")
    if row["published_drop"] is not None:
        parts.append(f"at most {100 * row['published_drop']:g} points lost" if row["published_drop"] else "no loss")
    if row["bar"] is not None:
        parts.append(f"(asked for: {row['bar']:.1%})")
    return ", ".join(parts)


def ours(row: Mapping[str, Any]) -> str:
    """What it came to."""
    return f"{rate(row):.1f}x, {row['accuracy']:.2%}"


def after_the_cut(row: Mapping[str, Any]) -> str:
    """Test accuracy before any retraining."""
    return f"{row['hardened']['test_accuracy']:.2%}" if row["hardened"] else ""


def quantized(row: Mapping[str, Any], when: str) -> str:
    """Test accuracy before quantization ("float32"), or before any training with it ("calibrated")."""
    found = row.get("quantized", {}).get(when)
    return f"{found['test_accuracy']:.2%}" if found else ""


def epochs(row: Mapping[str, Any]) -> str:
    """Dense, shape and retrain, and quantize where there are any."""
    found = row["epochs"]
    return " + ".join(map(str, found if any(found[3:]) else found[:3]))


def notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What was read into the papers' words."""
    found = [f"- {row['title']}: {row['note']}." for row in rows if row["note"]]
    return ["", *found] if found else []


def how(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Command, seed, time, machine and day of each row."""
    rows = list(rows)
    phases = "dense + shape + retrain" + " + quantize" * any(any(row["epochs"][3:]) for row in rows)
    head = ("row", "command", "seed", f"epochs ({phases})", "minutes", "threads", "machine", "date")
    lines = [
        (
            row["title"],
            f"`{row['command']}`",
            str(row["seed"]),
            epochs(row),
            f"{row['seconds'] / 60:.1f}",
            str(row["threads"]),
            row["processor"],
            row["when"][:10],
        )
        for row in rows
    ]
    return ["", "## How it was run", "", *table(head, lines)]
