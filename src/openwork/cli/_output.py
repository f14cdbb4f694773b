"""What a command prints: one result on stdout, everything else on stderr.

With `--json` the result is exactly one JSON document. Libraries that print while they work (exporters, compilers, C
code that writes to file descriptor 1) would spoil it, so descriptor 1 is pointed at stderr while a command runs and
`show` alone writes to the real one.
"""

import contextlib
import json
import math
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import IO, Any

from rich.console import Console, RenderableType

from ..errors import OpenworkNotice

_results: IO[str] | None = None

_PIPE = 200
"""Columns of text that goes into a file or a pipe."""


@contextlib.contextmanager
def results_apart() -> Iterator[None]:
    """Keep the real stdout for `show`; whatever else is written to stdout goes to stderr."""
    global _results
    sys.stdout.flush()
    real = os.dup(1)
    os.dup2(2, 1)
    with os.fdopen(os.dup(real), "w", encoding="utf-8") as stream:
        _results = stream
        try:
            yield
        finally:
            _results = None
            with contextlib.suppress(BrokenPipeError):
                sys.stdout.flush()
            os.dup2(real, 1)
            os.close(real)


def show(document: Mapping[str, Any], text: RenderableType, as_json: bool) -> None:
    """Print the command's result: `document` as JSON, or `text` for people."""
    stream = _results or sys.stdout
    if as_json:
        stream.write(json.dumps(_strict(document), indent=2, default=str, allow_nan=False) + "\n")
    elif isinstance(text, str):
        stream.write(text + "\n")  # as it is: a wrapped table cannot be read
    else:
        # Nobody's window is as wide as a file; rich would take 80 columns and break words to fit them.
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE
        Console(file=stream, width=width, soft_wrap=False, highlight=False).print(text)
    stream.flush()


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: null instead, so that any parser reads the document."""
    if isinstance(value, Mapping):
        return {str(key): _strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def fail(message: str, as_json: bool, code: int) -> int:
    """Print a mistake in one line on stderr (and as a document in JSON mode); returns the exit code."""
    line = " ".join(message.split())
    print(f"error: {line}", file=sys.stderr)
    if as_json:
        show({"error": line}, line, True)
    return code


def notice(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Print a warning on stderr: ours in one line without the place in the source, others as Python does."""
    if issubclass(category, OpenworkNotice):
        print(f"notice: {' '.join(str(message).split())}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def progress_console() -> Console:
    """Where progress goes: stderr, so that a pipe gets only the result."""
    # Bound to the stream as it is now, so that progress is seen while a library's own words are kept quiet.
    return Console(file=sys.stderr, highlight=False)
