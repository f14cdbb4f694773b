"""Charts as inline SVG that takes its colours and fonts from the page, so one picture serves light, dark and print.

Matplotlib draws with marker colours; `_inline` replaces them by the page's CSS variables.
"""

import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

# Each marker colour is one that no chart draws by chance; the value is the CSS variable that it becomes.
_INK, _MUTED, _GRID, _ACCENT, _SECOND, _QUIET = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
_PHASE = {"dense": "#010209", "shape": "#01020a", "retrain": "#01020b", "quantize": "#01020c"}
_VARIABLES = {
    _INK: "--ink", _MUTED: "--muted", _GRID: "--line", _ACCENT: "--accent", _SECOND: "--second", _QUIET: "--quiet",
    _PHASE["dense"]: "--phase-dense", _PHASE["shape"]: "--phase-shape", _PHASE["retrain"]: "--phase-retrain",
    _PHASE["quantize"]: "--phase-quantize",
}  # fmt: skip

_LOOKS = [
    (colour, dash)
    for dashes in (("-", "--", ":"), ("--", ":", "-"), (":", "-", "--"))
    for colour, dash in zip((_ACCENT, _SECOND, _MUTED), dashes, strict=True)
]
"""Colour and dash of lines that share a chart."""

Epochs = Sequence[Mapping[str, Any]]


def curves(
    epochs: Epochs, series: Mapping[str, str], label: str, log: bool = False, percent: bool = False
) -> str | None:
    """Lines of `series` (record key -> name) over epochs, phases shaded; None when no record has any of the keys."""
    present = {key: name for key, name in series.items() if any(_number(e.get(key)) is not None for e in epochs)}
    if not present:
        return None

    def draw(axes: Axes) -> None:
        _shade(axes, epochs)
        for (key, name), look in zip(present.items(), itertools.cycle(_LOOKS), strict=False):
            # A single line is named by the title already.
            _line(axes, _points(epochs, key, log, percent), name if len(present) > 1 else "", percent, *look)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: number(value))
            axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(0.5, len(epochs) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch", color=_MUTED)
        axes.set_title(label, loc="left", color=_INK, fontsize=11, pad=20)

    return _svg(draw, (5.6, 2.8), f"{label} by epoch", (0.09, 0.16, 0.73, 0.66))


def _points(epochs: Epochs, key: str, log: bool, percent: bool) -> list[tuple[int, float]]:
    """(epoch, value) where there is a value; zero has no place on a log axis."""
    found = [(i + 1, _number(e.get(key))) for i, e in enumerate(epochs)]
    return [(x, 100 * y if percent else y) for x, y in found if y is not None and (not log or y > 0)]


def _line(axes: Axes, points: Sequence[tuple[int, float]], name: str, percent: bool, colour: str, dash: str) -> None:
    """One line with its last value, and its name, beside its end."""
    if not points:
        return
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, dash, color=colour, linewidth=1.8, marker="o" if len(xs) < 40 else None, markersize=3.2)
    last = f"{ys[-1]:.2f} %" if percent else number(ys[-1])
    axes.annotate(
        f"{name} {last}".strip(),
        (xs[-1], ys[-1]),
        (7, 0),
        textcoords="offset points",
        color=colour,
        fontsize=9.5,
        va="center",
        annotation_clip=False,
    )


def bars(rows: Sequence[Mapping[str, Any]], unit: str, description: str) -> str | None:
    """Horizontal bars: each row has `name`, `value`, and may have `low`, `high` (spread), `note` and `ours`."""
    if not rows:
        return None

    def draw(axes: Axes) -> None:
        longest = max(row.get("high") or row["value"] for row in rows)
        remarks = any(row.get("note") for row in rows)  # they stand behind the bars and need the room
        for place, row in enumerate(rows):
            ours = bool(row.get("ours"))
            axes.barh(place, row["value"], 0.56, color=_ACCENT if ours else _QUIET)
            end = row["value"]
            if row.get("low") is not None and row.get("high") is not None:
                axes.plot([row["low"], row["high"]], [place, place], color=_INK, linewidth=1.2, solid_capstyle="butt")
                for edge in (row["low"], row["high"]):
                    axes.plot([edge, edge], [place - 0.13, place + 0.13], color=_INK, linewidth=1.2)
                end = max(end, row["high"])
            note = " · ".join(filter(None, (f"{number(row['value'])} {unit}", row.get("note"))))
            axes.text(end + longest * 0.015, place, note, va="center", color=_INK, fontsize=10)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.tick_params(axis="y", colors=_INK, labelsize=10.5, length=0)
        axes.set_xlim(0, longest * (1.72 if remarks else 1.34))
        axes.invert_yaxis()
        axes.xaxis.set_visible(False)
        axes.grid(visible=False)
        axes.spines["bottom"].set_visible(False)

    return _svg(draw, (9.4, 0.3 + 0.42 * len(rows)), description, (0.2, 0.03, 0.78, 0.94))


def scatter(
    groups: Mapping[str, Sequence[tuple[float, float, str]]], labels: tuple[str, str], description: str
) -> str | None:
    """Points (x, y, name) in up to three groups, each with its own marker, names beside them; x grows by factors."""
    if not any(groups.values()):
        return None

    def draw(axes: Axes) -> None:
        axes.set_xscale("log")
        looks = ((_ACCENT, "o"), (_SECOND, "s"), (_QUIET, "^"))
        for (group, points), (colour, marker) in zip(groups.items(), looks, strict=False):
            if not points:
                continue
            axes.scatter(
                [x for x, *_ in points], [y for _, y, _ in points], s=34, color=colour, marker=marker, label=group
            )
            for x, y, name in points:
                axes.annotate(name, (x, y), (5, 3), textcoords="offset points", color=_INK, fontsize=8)
        axes.xaxis.set_major_formatter(lambda value, _: number(value))
        axes.xaxis.set_minor_formatter(lambda value, _: number(value))
        axes.set_xlabel(labels[0], color=_MUTED)
        axes.set_title(labels[1], loc="left", color=_INK, fontsize=11)
        axes.legend(frameon=False, labelcolor=_INK, fontsize=9)

    return _svg(draw, (9.4, 5.6), description, (0.07, 0.1, 0.9, 0.82))


def standalone(svg: str) -> str:
    """A chart as a file of its own, with colours that a page would give it, for light and dark."""
    style = (
        "<style>svg{--ink:#1c2230;--muted:#5b6472;--line:#d9dee6;--accent:#0b6bcb;--second:#b4430e;--quiet:#7a8699;"
        "font-family:system-ui,sans-serif}"
        "@media(prefers-color-scheme:dark){svg{--ink:#e8ecf2;--muted:#a3adbb;--line:#3a4250;--accent:#6cb2ff;"
        "--second:#ff9a66;--quiet:#8c97a8}}</style>"
    )
    head, rest = svg.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{rest}\n'


def mask(weight: Any, limit: int = 64) -> str:
    """Picture of the first `limit` x `limit` entries of a weight seen as [out, in*kh*kw]; a square is a weight kept."""
    matrix = weight.reshape(weight.shape[0], -1)[:limit, :limit] != 0
    rows, columns = matrix.shape
    path = []
    for y in range(rows):
        x = 0
        while x < columns:
            if not matrix[y, x]:
                x += 1
                continue
            end = x
            while end < columns and matrix[y, end]:
                end += 1
            path.append(f"M{x} {y}h{end - x}v1H{x}z")
            x = end
    kept = 100 * float(matrix.mean())
    return (
        f'<svg class="mask" viewBox="0 0 {columns} {rows}" style="--columns:{columns}" role="img" '
        f'aria-label="first {rows} x {columns} weights, {kept:.0f} % kept" shape-rendering="crispEdges">'
        f'<rect width="{columns}" height="{rows}"/><path d="{"".join(path)}"/></svg>'
    )


def number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def _number(value: Any) -> float | None:
    """`value` as a finite float, or None."""
    if not isinstance(value, int | float) or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(value)


def _shade(axes: Axes, epochs: Epochs) -> None:
    """A band and a name for each run of epochs of one phase."""
    start = 0
    while start < len(epochs):
        phase, end = epochs[start].get("phase", ""), start
        while end < len(epochs) and epochs[end].get("phase", "") == phase:
            end += 1
        if phase in _PHASE:
            axes.axvspan(start + 0.5, end + 0.5, color=_PHASE[phase], linewidth=0, zorder=0)
            axes.text(
                (start + end + 1) / 2,
                1.03,
                phase,
                transform=axes.get_xaxis_transform(),
                ha="center",
                color=_MUTED,
                fontsize=9,
            )
        start = end


def _svg(
    draw: Callable[[Axes], None], size: tuple[float, float], description: str, box: tuple[float, float, float, float]
) -> str:
    """Run `draw` on axes in `box` (shares of the figure), figure of `size` inches; the SVG is themed by the page."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": description,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.edgecolor": _GRID,
        "axes.labelcolor": _MUTED,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "text.color": _INK,
        "axes.axisbelow": True,
        "ytick.major.size": 0,
        "ytick.minor.size": 0,
        "font.size": 9.5,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size)
        axes = figure.add_axes(box)
        axes.patch.set_visible(False)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        draw(axes)
        target = io.StringIO()
        figure.savefig(target, format="svg", transparent=True, metadata={"Date": None})
    return _inline(target.getvalue(), description, "chart wide" if size[0] > 6 else "chart")


def _inline(svg: str, description: str, style: str) -> str:
    """Only the <svg> element: no prologue, no metadata, no fixed size or font, colours from the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(
        r"font(?:-family)?: ?([^;\"]*?)'[^;\"]*", lambda m: f"font-size: {m[1].strip()}" if "px" in m[1] else "", svg
    )
    head, rest = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    svg = f'<svg class="{style}" {box[0]} role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'
    for marker, variable in _VARIABLES.items():
        svg = svg.replace(marker, f"var({variable})")
    return svg.strip()
