"""How latency and memory grow: with taps, threads and batch; and how long compiling and loading take.

python benchmarks/scaling.py [--rows taps,threads] [--again] [--list]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _live import largest_live
from _suite import Suite, goal, show_goals
from _workloads import network

import openwork
from openwork import models
from openwork.engine.timing import measure as in_turn
from openwork.engine.timing import ratio_interval

SPARSITIES = (0.0, 0.5, 0.75, 0.9, 0.95)
BATCHES = (1, 2, 4, 8, 16, 32)
ROUNDS = 15
NEVER_FALLING = 0.98
"""Throughput of a batch as a share of the next smaller one's, below which it falls; the rest is noise."""

TWO_THREADS = 1.8
COMPILE_SECONDS = 20.0
LOAD_SECONDS = 0.1
LIVE = 1.5
"""Arena, as a multiple of the largest live activations."""

ROWS = {
    "taps": "ResNet-50 in 4x1 blocks at 0, 50, 75, 90 and 95 %: latency against taps",
    "threads-dense": "ResNet-50, dense: two threads against one",
    "threads-4x1": "ResNet-50, 90 % in 4x1 blocks: two threads against one",
    "batch-resnet50": "ResNet-50, dense: throughput of batches 1 to 32",
    "batch-mobilenetv2": "MobileNetV2, dense: throughput of batches 1 to 32",
    **{f"memory-{m}": f"{m}: arena against the largest live activations" for m in ("resnet50", "mobilenetv2", "unet")},
    "compile": "ResNet-50, 90 % in 4x1 blocks: compiling with fast tuning",
    "load": "ResNet-50, dense: loading the artifact in a new process",
}


def measure(row: str, options: argparse.Namespace) -> dict[str, Any]:
    """One row, measured."""
    kind, _, what = row.partition("-")
    return globals()[f"measure_{kind}"](what, options)


def measure_taps(_: str, options: argparse.Namespace) -> dict[str, Any]:
    """Least squares of latency over taps times pixels, and how far the points are from the line."""
    inputs = models.example_inputs("resnet50")
    engines = [
        openwork.compile(network("resnet50", "4x1" if s else "dense", s), inputs, threads=options.threads)
        for s in SPARSITIES
    ]
    given = inputs[0].numpy()
    seconds = in_turn([partial(engine, given) for engine in engines], options.rounds, 3)
    latency = [1e3 * float(np.median(row)) for row in seconds]
    work = [
        sum((layer.get("nonzero") or 0) * (layer.get("pixels") or 0) for layer in e.artifact.layers) / 1e9
        for e in engines
    ]
    slope, intercept = np.polyfit(work, latency, 1)
    fitted = slope * np.array(work) + intercept
    spread = float(np.sum((np.array(latency) - fitted) ** 2) / np.sum((np.array(latency) - np.mean(latency)) ** 2))
    points = [{"sparsity": s, "work": w, "ms": ms} for s, w, ms in zip(SPARSITIES, work, latency, strict=True)]
    return {
        "points": points,
        "line": {"ms_each": float(slope), "ms_at_none": float(intercept)},
        "goals": [goal(">= 98 % of the variance on a line", 0.98, 1 - spread, "%")],
    }


def measure_threads(pattern: str, options: argparse.Namespace) -> dict[str, Any]:
    """The same network on one thread and on two."""
    model, inputs = network("resnet50", pattern, 0.0 if pattern == "dense" else 0.9), models.example_inputs("resnet50")
    engines = [openwork.compile(model, inputs, threads=n) for n in (1, 2)]
    given = inputs[0].numpy()
    one, two = in_turn([partial(engine, given) for engine in engines], options.rounds, 3)
    ratio, low, high = ratio_interval(one, two)
    return {
        "ms": [1e3 * float(np.median(one)), 1e3 * float(np.median(two))],
        "goals": [goal(f">= {TWO_THREADS:g}x", TWO_THREADS, ratio, "x", (low, high))],
    }


def measure_batch(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """Images a second, compiled for each batch; of the steps from one batch to the next the worst counts."""
    net = network(model)
    inputs = [models.example_inputs(model, batch=n) for n in BATCHES]
    engines = [openwork.compile(net, x, threads=options.threads) for x in inputs]
    runs = [partial(engine, x[0].numpy()) for engine, x in zip(engines, inputs, strict=True)]
    seconds = in_turn(runs, options.rounds, 1)
    rates = seconds / np.array(BATCHES)[:, None]  # seconds an image
    steps = [ratio_interval(rates[i], rates[i + 1]) for i in range(len(BATCHES) - 1)]
    worst = min(steps)
    return {
        "images_a_second": {str(n): float(1 / np.median(r)) for n, r in zip(BATCHES, rates, strict=True)},
        "goals": [
            goal(f">= {NEVER_FALLING:g}x of the next smaller batch", NEVER_FALLING, worst[0], "x", (worst[1], worst[2]))
        ],
    }


def measure_memory(model: str, options: argparse.Namespace) -> dict[str, Any]:
    """What the plan reserves beside the weights, against what the network must keep at one time."""
    net, inputs = network(model), models.example_inputs(model)
    program = openwork.compile(net, inputs, threads=options.threads, tune="off").artifact.program
    packed = sum(a.nbytes for step in program.steps for a in step.arrays.values())
    arena, live = 4 * program.arena, largest_live(net, inputs)
    weights = 4 * sum(p.numel() for p in net.parameters())
    within = (weights + LIVE * live) / (packed + arena)
    return {
        "bytes": {"arena": arena, "packed": packed, "weights": weights, "largest_live": live},
        "arena_over_live": arena / live,
        "goals": [goal(f"weights + {LIVE:g}x live activations >= weights and arena in use", 1.0, within)],
    }


def measure_compile(_: str, options: argparse.Namespace) -> dict[str, Any]:
    """Wall time of `openwork.compile` with its default, fast tuning."""
    model, inputs = network("resnet50", "4x1", 0.9), models.example_inputs("resnet50")
    with torch.no_grad():
        model(*inputs)
    began = time.perf_counter()
    openwork.compile(model, inputs, threads=options.threads, tune="fast")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "goals": [_at_most("s", COMPILE_SECONDS, seconds)]}


LOAD = """
import json, sys, time
import numpy, openwork
from openwork.engine.engine import load
began = time.perf_counter()
engine = load(sys.argv[1], threads=int(sys.argv[2]))
loaded = time.perf_counter() - began
engine(numpy.zeros(engine.inputs[0].shape, "float32"))
print(json.dumps([loaded, time.perf_counter() - began]))
"""


def measure_load(_: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time of `openwork.load`, imports apart, in new processes; the file is in the page cache, as after first use."""
    engine = openwork.compile(
        network("resnet50"), models.example_inputs("resnet50"), threads=options.threads, tune="off"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.openwork"
        size = engine.save(path)
        command = [sys.executable, "-c", LOAD, str(path), str(options.threads)]
        times = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(7)]
    loaded, first = (statistics.median(column) for column in zip(*times, strict=True))
    found = {"file_bytes": size, "load_seconds": loaded, "first_result_seconds": first}
    return {**found, "goals": [_at_most("ms", 1e3 * LOAD_SECONDS, 1e3 * loaded)]}


def _at_most(unit: str, limit: float, found: float) -> dict[str, Any]:
    """A goal that is met from below."""
    return goal(f"<= {limit:g} {unit}", 1.0, limit / found) | {"reached": f"{found:.1f} {unit}"}


def options(parser: argparse.ArgumentParser) -> None:
    """This benchmark's own options."""
    parser.add_argument("--rounds", type=int, default=ROUNDS)


SUITE = Suite("scaling", ROWS, measure, show_goals, options)

if __name__ == "__main__":
    raise SystemExit(SUITE.main(__doc__))
