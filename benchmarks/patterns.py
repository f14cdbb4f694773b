"""Every sparsity pattern on one convolution and one linear layer: bytes, latency beside dense, efficiency.

    python benchmarks/patterns.py [--rows 'conv-*'] [--again] [--list]

The sparse layer and the same layer without zeros are timed in turn in one run. Efficiency is useful multiply-adds, two
operations for each weight that is kept and each output, over the measured multiply-add peak: what a kernel computes
along does not count.
"""

import argparse
from typing import Any

import numpy as np
import torch
from _suite import Suite, errors, milliseconds, table
from torch import nn

import openwork
from openwork.constraints.base import Constraint
from openwork.engine.timing import measure as in_turn
from openwork.engine.timing import ratio_interval
from openwork.errors import ShapeError
from openwork.reproductions.patterns import patterns
from openwork.training.result import stored

LAYERS = {
    "conv": ("convolution 256 -> 256, 3x3, 14x14", (256, 256, 3, 3)),
    "linear": ("linear 1024 -> 1024, one sample", (1024, 1024)),
}
PERCENTS = (75, 90)
ROUNDS = 15


def constraint(name: str, percent: int) -> Constraint:
    """The pattern as the comparison of accuracies has it."""
    _, rules = patterns(percent / 100)[name]
    return Constraint.parse(rules[0][1])


def fits(layer: str, name: str, percent: int) -> bool:
    """Whether the pattern can hold the layer's weight."""
    try:
        constraint(name, percent).check(LAYERS[layer][1])
    except ShapeError:
        return False
    return True


ROWS = {
    f"{layer}-{name}-{percent}": f"{patterns(percent / 100)[name][0]} at {percent} %, {title}"
    for layer, (title, _) in LAYERS.items()
    for percent in PERCENTS
    for name in patterns(percent / 100)
    if fits(layer, name, percent)
}


def measure(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """One layer, pruned, beside itself without zeros."""
    kind, _, rest = row.partition("-")
    name, _, percent = rest.rpartition("-")
    torch.manual_seed(0)
    dense = made(kind)
    sparse = made(kind)
    (pattern,) = constraint(name, int(percent)).fitted([dense.weight.detach()])
    with torch.no_grad():
        sparse.weight.copy_(pattern.project(dense.weight))
    inputs = torch.randn((1, 256, 14, 14) if kind == "conv" else (1, 1024))
    engines = [openwork.compile(layer, inputs, threads=options.threads, tune="thorough") for layer in (sparse, dense)]
    array = inputs.numpy()
    ours, theirs = in_turn([lambda engine=engine: engine(array) for engine in engines], options.rounds, 3)
    ratio, low, high = ratio_interval(ours, theirs)
    explained = engines[0].explain(100)
    step = max(explained.rows, key=lambda r: r["microseconds"])
    kept, form = int(sparse.weight.count_nonzero()), stored(sparse.weight, pattern)
    pixels = 196 if kind == "conv" else 1
    return {
        "layer": kind,
        "pattern": name,
        "percent": int(percent),
        "kept": kept,
        "format": form[0],
        "bytes": form[1],
        "us": round(1e6 * float(np.median(ours)), 2),
        "dense_us": round(1e6 * float(np.median(theirs)), 2),
        "times_dense": [round(v, 4) for v in (ratio, low, high)],
        "kernel": step["kernel"],
        "why": step["why"],
        "efficiency": round(2e-3 * kept * pixels / step["microseconds"] / explained.totals["peak_gflops"], 4),
    }


def made(kind: str) -> nn.Conv2d | nn.Linear:
    """The layer without zeros."""
    return (nn.Conv2d(256, 256, 3, padding=1) if kind == "conv" else nn.Linear(1024, 1024)).eval()


def show(rows: list[dict[str, Any]]) -> str:
    """A line for each row."""
    lines = []
    for row in rows:
        if "error" in row:
            continue
        ratio, low, high = row["times_dense"]
        size = row["bytes"] / row["kept"] if row["format"] != "circulant" else float("nan")
        lines.append(
            [
                row["title"],
                f"{row['format']}, {row['bytes']:,}",
                "" if np.isnan(size) else f"{size:.2f}",
                milliseconds(row["us"]),
                f"{ratio:.2f} ({low:.2f}-{high:.2f})",
                f"{row['efficiency']:.0%}" if row["format"] != "circulant" else "",
                row["kernel"],
            ]
        )
    head = ("pattern and layer", "format, bytes", "bytes a weight", "latency", "times dense", "efficiency", "kernel")
    return "\n".join([table(head, lines), *errors(rows)])


def options(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own options."""
    parser.add_argument("--rounds", type=int, default=ROUNDS)


SUITE = Suite("patterns", ROWS, measure, show, options)

if __name__ == "__main__":
    raise SystemExit(SUITE.main(__doc__))
