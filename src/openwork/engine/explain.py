"""What the engine decided and why, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

COLUMNS = ("name", "op", "shape", "taps", "sparsity", "kernel", "microseconds", "gflops", "share_of_peak")


FEWER = (
    "winograd and circulant kernels do fewer multiply-adds than their layers are defined by: gflops counts those of "
    "the definition, share_of_peak those that are done"
)


@dataclass(frozen=True)
class Explanation:
    """One row a step, in the order in which they run; `str()` is a table, `to_dict()` is JSON.

    `gflops` counts each non-zero weight once for each output, `multiply_adds` and `share_of_peak` what a kernel does:
    Winograd's convolution and products of frequencies are fewer for the same result. Layers of `type` int8 have no
    share: the peak is that of float32.
    """

    rows: list[dict[str, Any]]
    totals: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Rows and totals as plain JSON values."""
        return {"rows": self.rows, "totals": dict(self.totals)}

    def __str__(self) -> str:
        table = [list(COLUMNS), *([_cell(c, row.get(c)) for c in COLUMNS] for row in self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
        ]
        reasons = [
            f"{row['name']}: {row['why']}" for row in self.rows if row["why"].startswith(("dense won", "left to"))
        ]
        if any(row["kernel"].startswith(("winograd", "circulant")) for row in self.rows):
            reasons.append(FEWER)
        summary = ", ".join(f"{key} {value}" for key, value in self.totals.items())
        return "\n".join([*lines, "", *reasons, summary])


def _cell(column: str, value: Any) -> str:
    if value is None:
        return "-"
    if column in ("sparsity", "share_of_peak"):
        return f"{100 * value:.1f} %"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
