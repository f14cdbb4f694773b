"""Figures of a quantized network: where the accuracy went."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor

from .places import Place
from .rounding import Grid
from .rows import RowGrid


@dataclass(frozen=True)
class LayerFigures:
    """What quantization did to a layer. Ratios of signal to quantization noise are in decibels; infinite: exact."""

    name: str
    """Name of its module."""
    kind: str
    """Class of its module."""
    shape: tuple[int, ...]
    """Of its weight."""
    weight_db: float
    """Of its weights."""
    input_db: float
    """Of its input, over calibration data."""
    output_db: float | None
    """Of the network's outputs with this layer alone quantized; None: not measured."""
    input: str
    """What the graph calls its input."""
    grid: Grid | RowGrid
    """What its input is rounded to."""
    clipped: float
    """Share of its input's values more than a step beyond the grid."""


@dataclass(frozen=True)
class Report:
    """Figures of a quantized network."""

    layers: tuple[LayerFigures, ...]
    """In the order in which they run."""
    places: tuple[Place, ...]
    """Every activation that is rounded: inputs of layers, and shortcuts of additions."""
    inputs: dict[str, int]
    """By name of a layer, which of the places its input comes from."""
    settings: dict[str, Any]
    """What was chosen."""
    left: tuple[tuple[str, str], ...]
    """Layers and operators with weights that stay in float32, and why."""
    equalized: tuple[tuple[str, str], ...]
    """Pairs of layers whose ranges were brought together."""
    samples: int
    """Calibration samples."""
    takes: tuple[tuple[tuple[int, ...], str], ...]
    """Shape and type of what one call takes, as it was captured."""
    any_batch: bool
    """Whether the network takes batches of any size."""
    output_db: float | None
    """Of the network's outputs with everything quantized; None: not measured."""
    notes: tuple[str, ...]
    """What a reader must know, one line each."""

    def worst(self) -> list[LayerFigures]:
        """Layers by what they do to the outputs alone, the worst first; none where that was not measured."""
        return sorted((x for x in self.layers if x.output_db is not None), key=lambda x: x.output_db or 0.0)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` gave; other fields are passed over. KeyError or TypeError for what it did not give."""
        fields = {name: found[name] for name in cls.__dataclass_fields__}
        measured = found["settings"]["measured"] > 0
        fields["layers"] = tuple(_layer(layer, measured) for layer in found["layers"])
        fields["places"] = tuple(Place(p["value"], _grid(p["grid"])) for p in found["places"])
        fields["takes"] = tuple((tuple(shape), dtype) for shape, dtype in found["takes"])
        for name in ("left", "equalized"):
            fields[name] = tuple(tuple(pair) for pair in found[name])
        fields["output_db"] = _whole(found["output_db"], measured)
        fields["notes"] = tuple(found["notes"])
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; an infinite ratio is null, or "-inf" where nothing is left."""
        found = asdict(self)
        for layer in found["layers"]:
            for name in ("weight_db", "input_db", "output_db"):
                layer[name] = _finite(layer[name])
        found["output_db"] = _finite(self.output_db)
        return found

    def rows(self) -> Iterable[tuple[str, ...]]:
        """Cells of a table with the columns `COLUMNS`."""
        for x in self.layers:
            shape = "x".join(map(str, x.shape))
            ratios = (decibels(x.weight_db), decibels(x.input_db), decibels(x.output_db))
            yield (x.name, f"{x.kind} {shape}", x.grid.levels, f"{100 * x.clipped:.3g} %", *ratios)

    def __str__(self) -> str:
        rows = [COLUMNS, *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        whole = [] if self.output_db is None else [f"outputs of the whole network: {decibels(self.output_db)} dB"]
        left = [f"left in float32: {name}, {why}" for name, why in self.left]
        return "\n".join([*lines, *whole, *left, *self.notes])


COLUMNS = ("layer", "weight", "levels of its input", "clipped", "weights, dB", "input, dB", "outputs with it alone, dB")


def ratio(power: float, noise: float) -> float:
    """Signal to noise in decibels, of sums of squares; infinite without noise."""
    if noise <= 0:
        return math.inf
    return 10 * math.log10(power / noise) if power > 0 else -math.inf


def between(exact: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """`ratio` of tensors and what quantization made of them."""
    power = sum(float(x.double().square().sum()) for x in exact)
    noise = sum(float((x.double() - y.double()).square().sum()) for x, y in zip(exact, other, strict=True))
    return ratio(power, noise)


def decibels(value: float | None) -> str:
    """A ratio as text."""
    if value is None:
        return ""
    return f"{value:.1f}" if math.isfinite(value) else "exact" if value > 0 else "nothing left"


def _layer(found: Mapping[str, Any], measured: bool) -> LayerFigures:
    ratios = {"output_db": _whole(found["output_db"], measured)}
    ratios |= {name: _whole(found[name], True) for name in ("weight_db", "input_db")}
    return LayerFigures(**{**found, "shape": tuple(found["shape"]), "grid": _grid(found["grid"]), **ratios})


def _grid(found: Mapping[str, Any]) -> Grid | RowGrid:
    return Grid(**found) if "scale" in found else RowGrid(**found)


def _whole(value: float | str | None, measured: bool) -> float | None:
    """What `_finite` made of it."""
    if value is None:
        return math.inf if measured else None
    return float(value)


def _finite(value: float | None) -> float | str | None:
    if value == -math.inf:
        return "-inf"
    return value if value is not None and math.isfinite(value) else None
