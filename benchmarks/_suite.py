"""What the benchmarks of this folder share: rows that are measured one by one, in a process each, and kept as JSON.

A row that is already there is not measured again, so an interrupted run goes on where it stopped.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import openwork
from openwork import files
from openwork.engine.machine import machine
from openwork.errors import OpenworkError

FOLDER = Path("runs/bench")


@dataclass(frozen=True)
class Suite:
    """A benchmark of several rows. Its file calls `main`, which is its command line."""

    name: str
    """The file's name: 'targets'."""
    rows: dict[str, str]
    """Name of each row: what it measures, in words."""
    measure: Callable[[str, argparse.Namespace], dict[str, Any]]
    """Measures one row by name; a dictionary that JSON can hold."""
    show: Callable[[list[dict[str, Any]]], str]
    """The table of measured rows, in text."""
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Adds the benchmark's own options."""

    def main(self, description: str | None, arguments: Sequence[str] | None = None) -> int:
        """Measure the rows asked for that are not there yet, and print the table; 1 if one failed, 2 for a mistake."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--rows", help="names of rows, such as a,b; a* takes all that begin with a; default: all")
        parser.add_argument("--again", action="store_true", help="measure rows that are already there, too")
        parser.add_argument("--list", action="store_true", help="name the rows and measure nothing")
        parser.add_argument("--folder", type=Path, default=FOLDER, help=f"where results lie (default: {FOLDER})")
        parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="threads of every side")
        parser.add_argument("--child", metavar="ROW", help=argparse.SUPPRESS)
        self.options(parser)
        options = parser.parse_args(arguments)
        options.said = _said(options, parser)
        if options.child:
            return self._child(options.child, options)
        try:
            wanted = chosen(options.rows, list(self.rows))
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        if options.list:
            print("\n".join(f"{name}: {self.rows[name]}" for name in wanted))
            return 0
        return self._run(wanted, options, list(arguments if arguments is not None else sys.argv[1:]))

    def path(self, folder: Path, row: str) -> Path:
        """Where a row's result lies."""
        return folder / f"{self.name}-{row}.json"

    def _run(self, wanted: list[str], options: argparse.Namespace, arguments: list[str]) -> int:
        failed = False
        for at, row in enumerate(wanted, 1):
            path = self.path(options.folder, row)
            if path.is_file() and not options.again and "error" not in json.loads(path.read_text()):
                continue
            print(f"[{at}/{len(wanted)}] {row}: {self.rows[row]}", file=sys.stderr, flush=True)
            began = time.monotonic()
            # A process each: what one row leaves behind (threads, memory, compiled code) must not slow the next one.
            done = subprocess.run([sys.executable, sys.argv[0], *arguments, "--child", row])
            if done.returncode and not _written_since(path, began):
                write(path, self._document(row, options, {"error": f"ended with code {done.returncode}"}, 0))
            failed |= bool(done.returncode)
        rows = [json.loads(p.read_text()) for row in wanted if (p := self.path(options.folder, row)).is_file()]
        print(self.show(rows))
        return int(failed)

    def _child(self, row: str, options: argparse.Namespace) -> int:
        began = time.monotonic()
        try:
            found = self.measure(row, options)
        except Exception as error:
            if not isinstance(error, OpenworkError):
                traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            print(f"{row}: {found['error']}", file=sys.stderr)
        write(self.path(options.folder, row), self._document(row, options, found, time.monotonic() - began))
        return int("error" in found)

    def _document(self, row: str, options: argparse.Namespace, found: dict[str, Any], seconds: float) -> dict[str, Any]:
        return {
            "suite": self.name,
            "row": row,
            "title": self.rows[row],
            "command": " ".join([f"python benchmarks/{self.name}.py --rows {row}", *options.said]),
            "when": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "machine": machine(),
            "openwork": openwork.__version__,
            "seconds": round(seconds, 1),
            **found,
        }


def _said(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """The options that change what is measured, as they were given."""
    beside = ("rows", "again", "list", "folder", "child")
    given = {k: v for k, v in vars(options).items() if k not in beside and v != parser.get_default(k)}
    return [f"--{k} {','.join(v) if isinstance(v, tuple) else v}" for k, v in given.items()]


def chosen(text: str | None, known: list[str]) -> list[str]:
    """The rows that 'a,*b*' names, wildcards as in a shell, in the order known; ValueError for a name that is none."""
    if not text:
        return known
    found: set[str] = set()
    for part in filter(None, text.split(",")):
        hits = [name for name in known if fnmatchcase(name, part)]
        if not hits:
            raise ValueError(f"unknown row {part!r}; known: {', '.join(known)}")
        found.update(hits)
    return [name for name in known if name in found]


def write(path: Path, document: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(document, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    files.write_bytes(path, text.encode())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, which reads well as text too: columns are padded."""
    cells = [list(header), ["---"] * len(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in cells)
    return "\n".join(lines)


def goal(
    target: str, at_least: float, found: float | None, unit: str = "x", interval: tuple[float, float] | None = None
) -> dict[str, Any]:
    """A target beside what was measured (None: nothing). `unit` follows the number; '%' shows a share."""
    scale, digits = (100, 0) if unit.startswith("%") else (1, 2)
    said = "" if found is None else f"{scale * found:.{digits}f}{' ' if scale == 100 else ''}{unit}"
    between = "" if interval is None else f"{scale * interval[0]:.{digits}f}-{scale * interval[1]:.{digits}f}"
    met = None if found is None else found >= at_least
    return {"target": target, "at_least": at_least, "found": found, "reached": said, "interval": between, "met": met}


def show_goals(rows: list[dict[str, Any]]) -> str:
    """Every goal of the rows in a line, then what was left out."""
    lines = []
    for row in rows:
        for at, one in enumerate(row.get("goals", [])):
            lines.append(
                [row["title"] if not at else "", one["target"], one["reached"], one["interval"], verdict(one, row)]
            )
    remarks = sorted({text for row in rows for text in row.get("left_out", [])})
    head = ("workload", "target", "reached", "95 % interval", "verdict")
    return "\n".join([table(head, lines), "", *(f"- {text}" for text in remarks), *errors(rows)]).rstrip()


def verdict(one: dict[str, Any], row: dict[str, Any]) -> str:
    """'met', 'missed', or why there is neither."""
    if one["met"] is None:
        return f"not yet: {row['not_yet']}" if row.get("not_yet") else "not measured here"
    return "met" if one["met"] else f"missed, {one['found'] / one['at_least']:.0%} of it"


def milliseconds(microseconds: float) -> str:
    """A time in the unit that suits it."""
    return f"{microseconds / 1000:.2f} ms" if microseconds >= 1000 else f"{microseconds:.1f} us"


def errors(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each row that could not be measured."""
    return (f"- {row['row']}: {row['error']}" for row in rows if "error" in row)


def _written_since(path: Path, began: float) -> bool:
    return path.is_file() and path.stat().st_mtime >= time.time() - (time.monotonic() - began) - 1
