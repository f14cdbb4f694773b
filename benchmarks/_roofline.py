"""What bounds a network on this machine: multiply-adds, loads into registers, or bytes that come from memory.

Counted: every multiply-add that a kernel makes (fill-in of blocks counts), every vector or broadcast it loads, every
byte of packed weights. Measured: the multiply-add peak, and loads a second from working sets of several sizes.
"""

import ctypes
import math
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from openwork.engine import _native
from openwork.engine.engine import Engine

SIZES = {"16 KiB": 2**14, "1 MiB": 2**20, "16 MiB": 2**24, "512 MiB": 2**29}
"""Working sets of one thread: in the first-level cache, in the second, beyond it, in memory."""

SECONDS = 0.05
"""How long one measurement of loads lasts at least."""

FIRST_LEVEL = 2**15
"""Bytes beyond which a tile's input does not stay in the first-level cache (32 or 48 KiB, shared with weights)."""

LANES = {"avx512": 16, "avx2": 8}


@cache
def library() -> ctypes.CDLL:
    """`loads.cpp`, compiled for this machine."""
    compiler = os.environ.get("CXX") or next(filter(shutil.which, ("c++", "g++", "clang++")))
    target = Path(tempfile.mkdtemp(prefix="openwork-loads-")) / "loads.so"
    source = Path(__file__).with_name("loads.cpp")
    subprocess.run([compiler, "-O3", "-march=native", "-shared", "-fPIC", source, "-o", target], check=True)
    found = ctypes.CDLL(str(target))
    found.loads.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    found.loads.restype = ctypes.c_float
    found.bytes_of_a_vector.restype = ctypes.c_int64
    return found


@cache
def load_bandwidth(working_set: int, threads: int) -> float:
    """Bytes a second that `threads` threads load in all, each going through `working_set` bytes of its own."""
    vector = int(library().bytes_of_a_vector())
    buffers = [np.ones(working_set // 4 + 16, np.float32) for _ in range(threads)]
    starts = [b.ctypes.data + -b.ctypes.data % 64 for b in buffers]
    count = working_set // vector

    def all_threads(passes: int) -> float:
        work = [threading.Thread(target=library().loads, args=(at, count, passes)) for at in starts]
        began = time.perf_counter()
        for thread in work:
            thread.start()
        for thread in work:
            thread.join()
        return time.perf_counter() - began

    passes = 1
    while (seconds := all_threads(passes)) < SECONDS:
        passes = max(2 * passes, int(1.2 * passes * SECONDS / seconds))
    return threads * working_set * passes / min(seconds, *(all_threads(passes) for _ in range(4)))


@cache
def peaks(isa: str, threads: int) -> dict[str, Any]:
    """What this machine can do: flops and loaded bytes a second, on `threads` threads."""
    fma = max(float(_native.fma_peak(isa)) for _ in range(3))
    loads = {name: load_bandwidth(size, threads) for name, size in SIZES.items()}
    return {"threads": threads, "gflops": threads * fma / 1e9, "gbytes": {k: v / 1e9 for k, v in loads.items()}}


def bandwidth_for(working_set: int, found: dict[str, Any]) -> float:
    """Bytes a second from the smallest measured working set that holds `working_set` bytes on the threads together."""
    for name, size in SIZES.items():
        if working_set <= size * found["threads"]:
            return float(found["gbytes"][name]) * 1e9
    return float(found["gbytes"]["512 MiB"]) * 1e9


def layers(engine: Engine, repeats: int = 30) -> list[dict[str, Any]]:
    """One row a step: its time, the three times that bound it from below, and which of them is largest."""
    found = peaks(engine.isa, engine.threads)
    steps = list(engine.artifact.program.steps)
    packed = sum(a.nbytes for step in steps for a in step.arrays.values())
    fetch = bandwidth_for(packed, found)
    rows = []
    explained = [row for row in engine.explain(repeats).rows if row["op"] != "torch"]
    for step, layer, row in zip(steps, engine.artifact.layers, explained, strict=True):
        work = counted(row, layer, engine.isa)
        limits = {
            "fma": work["flops"] / (found["gflops"] * 1e9),
            "load": work["loaded"] / (found["gbytes"][work["from"]] * 1e9),
            "memory": sum(a.nbytes for a in step.arrays.values()) / fetch,
        }
        bound = max(limits, key=limits.__getitem__) if work["flops"] else "moves data"
        rows.append(
            {
                "name": row["name"],
                "kernel": row["kernel"],
                "microseconds": row["microseconds"],
                "bound": bound,
                "limit_us": round(1e6 * limits[bound], 3) if work["flops"] else None,
                "limits_us": {k: round(1e6 * v, 3) for k, v in limits.items()},
            }
        )
    return rows


def counted(row: dict[str, Any], layer: Any, isa: str) -> dict[str, Any]:
    """Flops of the multiply-adds that a step makes, bytes that it loads into registers, and the working set ('from')
    that it goes through again and again; zeros for other steps.

    A tap of a block of mb rows is nv loads of x and mb broadcasts of weights for each tile of nv vectors of positions;
    a broadcast takes a load's time. In a `rows` kernel the lanes run over outputs: each weight is loaded once for a
    tile of samples, and x is broadcast.
    """
    found = re.match(r"(taps|rows)_f32_(\d+)x(\d+)", row["kernel"] or "")
    taps, positions = row["taps"], layer.get("pixels")
    if found is None or not taps or not positions:
        return {"flops": 0.0, "loaded": 0.0, "from": "16 KiB"}
    kind, first, second = found[1], int(found[2]), int(found[3])
    lanes = LANES.get(isa, 4)
    if kind == "rows":
        tiles = math.ceil(positions / second)
        loads = taps * tiles * (first / lanes + second)
        touched = 4 * first * taps
    else:
        tiles = math.ceil(positions / lanes / second)
        loads = taps * tiles * (first + second)
        touched = 4 * lanes * second * _rows_of_planes(row)
    return {
        "flops": 2.0 * taps * first * positions,
        "loaded": 4.0 * lanes * loads,
        "from": "16 KiB" if touched <= FIRST_LEVEL else "1 MiB",
    }


def _rows_of_planes(row: dict[str, Any]) -> int:
    """How many rows of input planes a tile of positions reads: the columns of the weight, but the three positions of a
    3x3 kernel that lie side by side read the same row."""
    shape = [int(n) for n in row["shape"].split("x")]
    outputs = shape[-1] if row["op"] == "linear" else shape[1]
    columns = int(row["weights"]) // max(1, outputs)
    return columns // 3 if columns % 9 == 0 else columns


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Of the time of all steps, the share spent in steps of each bound, and what the bounds would allow."""
    total = sum(row["microseconds"] for row in rows)
    shares = {}
    for bound in ("fma", "load", "memory", "moves data"):
        those = [row for row in rows if row["bound"] == bound]
        spent = sum(row["microseconds"] for row in those)
        limit = sum(row["limit_us"] or 0.0 for row in those)
        if spent:
            shares[bound] = {"share": round(spent / total, 4), "of_limit": round(limit / spent, 4)}
    return {
        "total_us": round(total, 1),
        "limit_us": round(sum(r["limit_us"] or 0.0 for r in rows), 1),
        "bounds": shares,
    }
