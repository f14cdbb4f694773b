"""Never slower: every model, dense and sparse in every pattern, against PyTorch eager and its own dense latency.

    python benchmarks/sweep.py [--rows 'resnet50-*'] [--again] [--list]

Each row times three sides in turn in one run: the compiled network, the same model compiled dense, and PyTorch eager on
the same network. A ratio above 1.02 is slower; the table names it.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from _suite import Suite, errors, milliseconds, table
from _workloads import PATTERNS, network, sparsity_of

import openwork
from openwork import models, plugins
from openwork.engine.bench_sides import prepare
from openwork.engine.peers.pytorch import PyTorch
from openwork.engine.timing import measure as in_turn
from openwork.engine.timing import ratio_interval

LIMIT = 1.02
"""Largest latency, as a multiple of PyTorch's and of the own dense one, that counts as not slower."""

SPARSITIES = (50, 75, 90, 95)
ROUNDS = 10
LIKE_OTHERS = ("cifar10_resnet32", "cifar10_resnet44", "cifar10_resnet56")
"""Models that differ from another one in nothing but the number of layers."""

MODELS = tuple(name for name in plugins.names("models") if name not in LIKE_OTHERS)
ROWS = {
    f"{model}-{kind}": title
    for model in MODELS
    for kind, title in {
        "dense": f"{model}, dense",
        **{f"{p}-{s}": f"{model}, {s} % {p}" for p in PATTERNS for s in SPARSITIES},
    }.items()
}


def measure(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network beside its dense self and PyTorch."""
    model, _, kind = row.partition("-")
    pattern, _, percent = kind.partition("-")
    sparse = network(model, pattern, int(percent or 0) / 100)
    inputs = models.example_inputs(model)
    dense = dense_engine(model, options, again=pattern == "dense")
    engine = (
        dense if pattern == "dense" else openwork.compile(sparse, inputs, threads=options.threads, tune=options.tune)
    )
    given = tuple(x.numpy() for x in inputs)
    ready = prepare(engine, [PyTorch()], {"compiled": sparse}, given, options.threads)
    runs = {"openwork": ready.runs["openwork", "compiled"], "pytorch": ready.runs["pytorch", "compiled"]}
    if pattern != "dense":
        runs["dense"] = lambda: dense(*given)
    seconds = dict(zip(runs, in_turn(list(runs.values()), options.rounds, 2), strict=True))
    return {
        "model": model,
        "pattern": pattern,
        "percent": int(percent or 0),
        "sparsity": round(sparsity_of(sparse), 4),
        "us": {side: round(1e6 * float(np.median(s)), 2) for side, s in seconds.items()},
        "against": {side: _times(seconds["openwork"], s) for side, s in seconds.items() if side != "openwork"},
        "left_out": ready.notes,
    }


def _times(ours: np.ndarray, theirs: np.ndarray) -> dict[str, Any]:
    """Our latency as a multiple of theirs."""
    ratio, low, high = ratio_interval(ours, theirs)
    return {"ratio": round(ratio, 4), "low": round(low, 4), "high": round(high, 4), "slower": ratio > LIMIT}


def dense_engine(model: str, options: argparse.Namespace, again: bool) -> openwork.Engine:
    """The model compiled dense; kept, since every pattern is compared with it."""
    path: Path = options.folder / "engines" / f"{model}.openwork"
    if path.is_file() and not again:
        return openwork.load(path, threads=options.threads)
    engine = openwork.compile(
        network(model), models.example_inputs(model), threads=options.threads, tune=options.tune, name=model
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    engine.save(path)
    return engine


def show(rows: list[dict[str, Any]]) -> str:
    """A line for each model and pattern: the worst multiples over the sparsities, and where one is above the limit."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        if "error" not in row:
            groups[row["model"], row["pattern"]].append(row)
    lines = []
    for (model, pattern), found in groups.items():
        latency = ", ".join(f"{r['percent']} %: {milliseconds(r['us']['openwork'])}" for r in found)
        slow = [f"{r['percent']} % against {side}" for r in found for side, a in r["against"].items() if a["slower"]]
        worst = [_worst(found, side) for side in ("pytorch", "dense")]
        lines.append([model, pattern, latency.removeprefix("0 %: "), *worst, ", ".join(slow) or "-"])
    count = sum(a["slower"] for row in rows for a in row.get("against", {}).values())
    of = sum(len(row.get("against", {})) for row in rows)
    head = ("model", "pattern", "latency", "times PyTorch, worst", "times dense, worst", f"slower (> {LIMIT})")
    return "\n".join([table(head, lines), "", f"{count} of {of} comparisons are slower.", *errors(rows)])


def _worst(rows: list[dict[str, Any]], side: str) -> str:
    found = [row["against"][side]["ratio"] for row in rows if side in row["against"]]
    return f"{max(found):.2f}" if found else ""


def options(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own options."""
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--tune", default="fast", choices=("off", "fast", "thorough"))


SUITE = Suite("sweep", ROWS, measure, show, options)

if __name__ == "__main__":
    raise SystemExit(SUITE.main(__doc__))
