"""How a recurrent layer's weights are packed: which units a part owns, and panels of outputs that share columns.

A part owns some units of the hidden state: all rows of its units, gate by gate. Rows without a weight are left out; the
others are ordered so that rows with the same columns follow each other (the matrix reorder of RTMobile, Dong et al.
2020, arXiv:2002.11474) and cut into panels. Consecutive panels with the same columns store those once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats.program import Array
from .layout import UNIT, round_up

GATES = {"gru": 3, "lstm": 4, "tanh": 1, "relu": 1}


@dataclass(frozen=True)
class Cells:
    """The units of a layer."""

    kind: str
    """A key of `GATES`."""
    hidden: int
    directions: int

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "Cells":
        """The units that a step's fields describe."""
        return cls(fields["cell"], fields["hidden"], fields["directions"])

    @property
    def gates(self) -> int:
        """Gates of a unit."""
        return GATES[self.kind]

    @property
    def padded(self) -> int:
        """Units of a direction, filled up to whole vectors."""
        return round_up(self.hidden)

    @property
    def units(self) -> int:
        """Units of all directions, padding included."""
        return self.directions * self.padded

    @property
    def gated(self) -> int:
        """Floats that hold one value for each gate of each unit."""
        return self.units * self.gates

    def places(self) -> NDArray[np.int64]:
        """Where each row of a weight matrix [directions * gates * hidden, ...] lies among the padded gates."""
        gate = np.arange(self.directions * self.gates)[:, None] * self.padded
        return (gate + np.arange(self.hidden)).reshape(-1)

    def spread(self, rows: Array) -> Array:
        """The rows of a weight matrix or bias at their places, zeros between them."""
        found = np.zeros((self.gated, *rows.shape[1:]), np.float32)
        found[self.places()] = rows
        return found


@dataclass(frozen=True)
class Panel:
    """Rows that are computed together, by number, and the columns of which any of them has a weight."""

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


@dataclass(frozen=True)
class Layout:
    """Who computes what: unit cuts, and the panels of each part."""

    units: list[int]
    parts: list[list[Panel]]

    def columns(self) -> int:
        """Columns of all panels."""
        return sum(len(p.columns) for part in self.parts for p in part)


def arrange(matrix: Array, cells: Cells, width: int, parts: int, dense: bool) -> Layout:
    """Lay out `matrix` [directions * gates * hidden, hidden] in panels of `width` rows; `dense` keeps zeros."""
    mask = np.ones(matrix.shape, bool) if dense else matrix != 0
    units = _cuts(mask, cells, width if dense else UNIT, parts)
    return Layout(units, [list(_panels(mask, cells, width, first, last)) for first, last in pairwise(units)])


def _cuts(mask: NDArray[np.bool_], cells: Cells, step: int, parts: int) -> list[int]:
    """Where parts begin: about equal work in each, at multiples of `step` units where that leaves enough parts."""
    if parts <= cells.directions:
        return [d * cells.units // parts for d in range(parts + 1)]
    step = step if cells.units % step == 0 and cells.units >= parts * step else UNIT
    work = cells.spread(mask.sum(axis=1, dtype=np.float32) + 1).reshape(cells.directions, cells.gates, cells.padded)
    done = np.cumsum(work.sum(axis=1).reshape(-1, step).sum(axis=1))
    cuts = np.searchsorted(done, done[-1] * np.arange(1, parts) / parts - 1e-6 * done[-1]) + 1
    return [0, *sorted({int(c) * step for c in cuts if 0 < c < len(done)}), cells.units]


def _panels(mask: NDArray[np.bool_], cells: Cells, width: int, first: int, last: int) -> Iterator[Panel]:
    """Panels of the units [first, last)."""
    for d in range(cells.directions):
        begin, end = (min(max(u - d * cells.padded, 0), cells.hidden) for u in (first, last))
        gate = (d * cells.gates + np.arange(cells.gates))[:, None] * cells.hidden
        rows = (gate + np.arange(begin, end)).reshape(-1)
        rows = _ordered(mask, rows[mask[rows].any(axis=1)])
        for at in range(0, len(rows), width):
            some = rows[at : at + width]
            yield Panel(some, np.flatnonzero(mask[some].any(axis=0)))


def _ordered(mask: NDArray[np.bool_], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows with the same columns together, otherwise as they come."""
    seen: dict[bytes, int] = {}
    patterns = np.packbits(mask[rows], axis=1)
    return rows[np.argsort([seen.setdefault(p.tobytes(), len(seen)) for p in patterns], kind="stable")]


def pack(
    matrix: Array, bias: Array, cells: Cells, width: int, parts: int, dense: bool
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Fields and arrays of a recurrent step. `bias` [directions * gates * hidden] is added to the recurrent product."""
    layout = arrange(matrix, cells, width, parts, dense)
    places = cells.places()
    panels: list[int] = []
    start, part = [0], [0]
    index, value, packed_bias, place = [], [], [], []
    for some in layout.parts:
        previous: NDArray[np.int64] | None = None
        for panel in some:
            direction = int(panel.rows[0]) // (cells.gates * cells.hidden)
            columns = panel.columns + direction * cells.padded
            if previous is not None and np.array_equal(previous, columns):
                panels[-1] += 1
            else:
                panels.append(1)
                index.append(columns)
                start.append(start[-1] + len(columns))
            previous = columns
            used, empty = len(panel.rows), width - len(panel.rows)
            values = np.zeros((len(columns), width), np.float32)
            values[:, :used] = matrix[np.ix_(panel.rows, panel.columns)].T
            value.append(values.reshape(-1))
            packed_bias.append(np.pad(bias[panel.rows], (0, empty)))
            place.append(np.pad(places[panel.rows], (0, empty), constant_values=-1))
        part.append(len(panels))
    columns = _joined(index, np.int32)
    small = not len(columns) or columns.max() < 1 << 16
    arrays: dict[str, Array] = {
        "panels": np.array(panels, np.int32),
        "start": np.array(start, np.int32),
        "index": columns.astype(np.uint16) if small else columns,
        "value": _joined(value, np.float32),
        "bias": _joined(packed_bias, np.float32),
        "place": _joined(place, np.int32),
        "rest": cells.spread(bias),
    }
    return {"width": width, "units": layout.units, "part": part}, arrays


def _joined(parts: list[Array], dtype: Any) -> Array:
    return np.concatenate([np.zeros(0, dtype), *parts]).astype(dtype, copy=False)
