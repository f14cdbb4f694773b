"""Single convolutions at several sparsities: useful GFLOP/s, share of the measured multiply-add peak, chosen kernel.

    python benchmarks/layers.py [--threads 1] [--json FILE]

Useful operations are two for each non-zero weight and output pixel; zeros that a kernel computes along do not count.
"""

import argparse
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import openwork

# (in, out, kernel, image): ResNet-50's shapes
LAYERS = (
    (64, 64, 3, 56),
    (128, 128, 3, 28),
    (256, 256, 3, 14),
    (512, 512, 3, 7),
    (256, 64, 1, 56),
    (1024, 256, 1, 14),
    (512, 2048, 1, 7),
)
# name: (rows of a block, share of weights that stay)
PATTERNS = {"dense": (1, 1.0), "90 % in 8x1": (8, 0.1), "90 % in 4x1": (4, 0.1), "90 % unstructured": (1, 0.1)}


def masked(layer: nn.Conv2d, rows: int, density: float, seed: int = 0) -> nn.Conv2d:
    """Zero random blocks of `rows` filters at one (input channel, kernel position) each."""
    weight = layer.weight.data
    blocks = weight.view(len(weight) // rows, rows, -1)
    keep = torch.rand((len(blocks), 1, blocks.shape[2]), generator=torch.Generator().manual_seed(seed)) < density
    blocks.mul_(keep)
    return layer


def measure(layer: nn.Conv2d, size: int, threads: int) -> dict[str, Any]:
    """Compile one layer and time its kernel alone."""
    engine = openwork.compile(layer, torch.randn(1, layer.in_channels, size, size), threads=threads, tune="thorough")
    explanation = engine.explain(repeats=200)
    row = next(r for r in explanation.rows if r["op"] == "conv")
    return {k: row[k] for k in ("kernel", "microseconds", "gflops", "multiply_adds", "share_of_peak", "why")}


def results(threads: int) -> Iterator[dict[str, Any]]:
    """One row a layer and pattern."""
    for cin, cout, kernel, size in LAYERS:
        for pattern, (rows, density) in PATTERNS.items():
            torch.manual_seed(0)
            layer = masked(nn.Conv2d(cin, cout, kernel, padding=kernel // 2).eval(), rows, density)
            name = f"{cin}->{cout} {kernel}x{kernel} {size}x{size}"
            yield {"layer": name, "pattern": pattern, **measure(layer, size, threads)}


def main() -> None:
    """Print the table, and write it as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    table = Table("layer", "pattern", "kernel", "us", "GFLOP/s", "of peak", title=f"{options.threads} thread(s)")
    for row in results(options.threads):
        rows.append(row)
        cells = f"{row['microseconds']:.1f}", f"{row['gflops']:.0f}", f"{100 * row['share_of_peak']:.0f} %"
        table.add_row(row["layer"], row["pattern"], row["kernel"], *cells)
    shares = {p: [r["share_of_peak"] for r in rows if r["pattern"] == p] for p in PATTERNS}
    for pattern, values in shares.items():
        table.add_row(
            "geometric mean", pattern, "", "", "", f"{100 * math.exp(statistics.fmean(map(math.log, values))):.0f} %"
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
