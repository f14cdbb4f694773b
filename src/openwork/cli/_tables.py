"""Tables for people: plain figures, aligned, with units."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str | None = None,
    right: Sequence[int] = (),
    whole: Sequence[int] = (),
) -> Table:
    """A table with a rule under its head; columns in `right` (by number) hold figures and are aligned to the right,
    those in `whole` are never broken over lines."""
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, header_style="dim")
    for number, column in enumerate(columns):
        made.add_column(
            column, justify="right" if number in right else "left", overflow="fold", no_wrap=number in whole
        )
    for row in rows:
        made.add_row(*row)
    return made


def facts(rows: Iterable[tuple[str, str]], title: str | None = None) -> Table:
    """Names and values, one pair a line."""
    made = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False, title_style="bold")
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def percent(share: float | None, digits: int = 2) -> str:
    """A share in [0, 1] as per cent."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def size(count: int) -> str:
    """Bytes with a binary unit."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1024**2 else f"{count / 1024**2:.2f} MiB"


def time(microseconds: float) -> str:
    """Microseconds, or milliseconds from 1000 on."""
    return f"{microseconds:.1f} µs" if microseconds < 1000 else f"{microseconds / 1000:.2f} ms"
