"""The figures of a run: accuracy, sparsity, bytes, latency, and how they are written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .charts import number
from .reading import Run


@dataclass(frozen=True)
class Figure:
    """One headline: a name, the figure itself, and one line under it."""

    name: str
    before: str
    after: str
    note: str


@dataclass(frozen=True)
class Side:
    """One engine's latency, microseconds, and how it compares with ours."""

    name: str
    median: float
    low: float | None
    high: float | None
    ours: bool
    ratio: str
    """How many times our latency, with its 95 % interval where that is known."""


def headline(run: Run, sides: Sequence[Side]) -> list[Figure]:
    """The figures at the top; each only when the run folder has what it needs."""
    final, dense = run.result.get("final", {}), run.result.get("dense") or {}
    found = []
    if "test_accuracy" in final:
        before, after = dense.get("test_accuracy"), final["test_accuracy"]
        change = "" if before is None else f"{100 * (after - before):+.2f} points"
        found.append(Figure("Test accuracy", "" if before is None else percent(before), percent(after), change))
    if "sparsity" in final:
        kept = f"{final['nonzero']:,} of {final['weights']:,} weights left"
        found.append(Figure("Sparsity", "", percent(final["sparsity"], 1), kept))
    sizes = byte_sizes(run)
    if len(sizes) > 1:
        (first, before), *_, (_, after) = sizes.items()
        found.append(Figure("File", size(before), size(after), f"{before / after:.1f}x smaller than {first}"))
    ours = next((s for s in sides if s.ours), None)
    others = [s for s in sides if not s.ours]
    if ours is not None:
        best = min(others, key=lambda s: s.median) if others else None
        found.append(Figure("Latency", time(best.median) if best else "", time(ours.median), "median of one inference"))
        if best is not None:
            note = f"against {best.name}, the fastest other engine"
            found.append(Figure("Speed-up", "", f"{best.median / ours.median:.2f}x", note))
    return found


def engine_sides(bench: Mapping[str, Any]) -> list[Side]:
    """Latency of each engine, ours first, then fastest first."""
    rows = bench.get("sides", ())
    sides = [
        Side(
            name=str(row["name"]),
            median=float(row["median_us"]),
            low=row.get("low_us"),
            high=row.get("high_us"),
            ours=row.get("engine", row["name"]) == "openwork",
            ratio=_ratio(row),
        )
        for row in rows
        if row.get("median_us") is not None
    ]
    return sorted(sides, key=lambda s: (not s.ours, s.median))


def _ratio(row: Mapping[str, Any]) -> str:
    if row.get("ratio") is None:
        return ""
    interval = f" ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if row.get("ratio_low") is not None else ""
    return f"{row['ratio']:.2f}x{interval}"


def byte_sizes(run: Run) -> dict[str, int]:
    """Bytes of the dense weights and of the artifact, in that order."""
    sizes = {}
    weights = run.folder / "model.safetensors"
    if weights.is_file():
        sizes["the dense weights"] = weights.stat().st_size
    if run.artifact is not None:
        sizes["the artifact"] = run.artifact.stat().st_size
    return sizes


def percent(share: float, digits: int = 2) -> str:
    """A share in [0, 1] as per cent."""
    return f"{100 * share:.{digits}f} %"


def time(microseconds: float) -> str:
    """Microseconds, or milliseconds from 1000 on."""
    return f"{number(microseconds)} µs" if microseconds < 1000 else f"{number(microseconds / 1000)} ms"


def size(count: int) -> str:
    """Bytes with a binary unit."""
    return f"{number(count / 1024)} KiB" if count < 1024**2 else f"{number(count / 1024**2)} MiB"
