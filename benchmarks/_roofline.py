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

from openwork.compiler.drafts import TILE
from openwork.engine import _native
from openwork.engine.engine import Engine
from openwork.engine.machine import DOT_PRODUCTS, MATRICES

SIZES = {"16 KiB": 2**14, "1 MiB": 2**20, "16 MiB": 2**24, "512 MiB": 2**29}
"""Working sets of one thread: in the first-level cache, in the second, beyond it, in memory."""

SECONDS = 0.05
"""How long one measurement of loads lasts at least."""

FIRST_LEVEL = 2**15
"""Bytes beyond which a tile's input does not stay in the first-level cache (32 or 48 KiB, shared with weights)."""

LANES = {"avx512amx": 16, "avx512vnni": 16, "avx512": 16, "avx2vnni": 8, "avx2": 8}

MOST_TILES = 14
"""Tiles of Winograd's convolution that a register block holds at most."""

DEPTHWISE_ROWS = {16: 8, 8: 4}
"""Rows of outputs in a tile of the depthwise kernel, by lanes."""

Row = dict[str, Any]
Count = tuple[float, list[tuple[float, float]]]


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
        work = counted(row, layer, engine.isa, step.fields)
        limits = {
            "fma": work["flops"] / (found["gflops"] * 1e9),
            "load": sum(many / (found["gbytes"][level] * 1e9) for level, many in work["loaded"].items()),
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


def counted(row: Row, layer: Row, isa: str, fields: Row) -> dict[str, Any]:
    """Flops of the multiply-adds that a step makes, and the bytes that it loads into registers, by the working set that
    it goes through again and again meanwhile; nothing for steps that move data. `fields` are the step's.

    Counted as few as the kernel can do with: as if its tiles were full. A broadcast takes a load's time. A word of four
    bytes counts as a float does, and its dot product as a multiply-add, which takes a CPU that has them as long.
    """
    kinds = "f32|i8" if isa in DOT_PRODUCTS else "f32"
    found = re.match(rf"([a-z]+)_(?:{kinds})_(\d[\dx]*)?", row["kernel"] or "")
    count = _COUNTS.get(found[1]) if found else None
    if found is None or count is None or not row["taps"] or not layer.get("pixels"):
        return {"flops": 0.0, "loaded": {}}
    lanes = LANES.get(isa, 4)
    sizes = map(int, re.findall(r"\d+", found[2] or ""))
    flops, loads = count(row, layer["pixels"], lanes, fields, *sizes)
    loaded: dict[str, float] = {}
    for touched, many in loads:
        level = "16 KiB" if touched <= FIRST_LEVEL else "1 MiB"
        loaded[level] = loaded.get(level, 0.0) + 4.0 * lanes * many
    return {"flops": 2.0 * flops, "loaded": loaded}


def _taps(row: Row, pixels: int, lanes: int, fields: Row, mb: int, vectors: int) -> Count:
    """A tap of a block of mb rows is a load of x for each vector of positions in a tile, and mb broadcasts."""
    tiles = math.ceil(pixels / lanes / vectors)
    if mb == TILE and MATRICES in row["kernel"]:  # 2 x 2 share what they load; an eighth of the time of dot products
        return row["taps"] * mb * pixels / 8, [
            (4 * lanes * vectors * _rows_of_planes(row), row["taps"] * tiles * vectors)
        ]
    return row["taps"] * mb * pixels, [
        (4 * lanes * vectors * _rows_of_planes(row), row["taps"] * tiles * (mb + vectors))
    ]


def _rows(row: Row, pixels: int, lanes: int, fields: Row, width: int, samples: int) -> Count:
    """Lanes run over outputs: each weight is loaded once for a tile of samples, and x is broadcast."""
    tiles = math.ceil(pixels / samples)
    return row["taps"] * width * pixels, [(4 * width * row["taps"], row["taps"] * tiles * (width / lanes + samples))]


def _dense(row: Row, pixels: int, lanes: int, fields: Row, rows: int, columns: int, width: int) -> Count:
    """Lanes run over outputs: a tile of pixels loads the weights of its panel, and broadcasts neighbours of a line."""
    tiles = math.ceil(pixels / rows / columns)
    panel = 4 * width * row["taps"] / math.ceil(_outputs(row) / width)
    weights = row["taps"] * tiles * width / lanes
    return row["taps"] * width * pixels, [(panel, weights), (0, row["taps"] * pixels)]


def _winograd(row: Row, pixels: int, lanes: int, fields: Row, tile: int, _: int, width: int) -> Count:
    """The products, not the transforms: the dense kernel on `MOST_TILES` tiles at a time, point by point."""
    products = row["multiply_adds"]
    channels = row["taps"] / 9 / math.ceil(_outputs(row) / width)
    return products, [(4 * width * channels, products / lanes / MOST_TILES), (0, products / width)]


def _circulant(row: Row, pixels: int, lanes: int, fields: Row, block: int, samples: int) -> Count:
    """The products, not the transforms: each vector of weights is loaded once a sample and serves two multiply-adds;
    for two of them two numbers are broadcast."""
    weights = row["taps"] * pixels / lanes
    return row["multiply_adds"], [(4 * row["taps"], weights), (0, weights * lanes / 16)]


def _balanced(row: Row, pixels: int, lanes: int, fields: Row, window: int, samples: int) -> Count:
    """A slot is 16 weights and 2 to 5 bits for each, loaded once for a tile of samples; then each loads its window."""
    tiles, vectors = math.ceil(pixels / samples), row["taps"] * 16 / lanes
    weights = vectors * (1 + (window.bit_length() - 1) / 32)
    windows = vectors * pixels * max(1, window / lanes)
    return row["taps"] * 16 * pixels, [(4 * lanes * weights, tiles * weights), (0, windows)]


def _depthwise(row: Row, pixels: int, lanes: int, fields: Row) -> Count:
    """Rows of the input are loaded once and laid out in the first cache; for each column of the kernel a tile loads all
    rows that some rows of outputs read, and broadcasts the column's weights."""
    (h, w, out_h, out_w), (kh, kw), stride = fields["size"], fields["kernel"], fields["stride"]
    images = pixels // (out_h * out_w) * _outputs(row)
    laid = min(h, (out_h - 1) * stride + kh) * math.ceil(w / lanes)
    tile = min(out_h, DEPTHWISE_ROWS.get(lanes, 8)) if (kh, kw) in ((3, 3), (5, 5)) else 1
    each = kw * ((tile - 1) * stride + kh) + kh * kw
    vectors = out_h * math.ceil(out_w / lanes) / tile
    return row["taps"] * pixels, [(math.inf, images * laid), (0, images * vectors * each)]


_COUNTS = {
    "taps": _taps,
    "rows": _rows,
    "dense": _dense,
    "winograd": _winograd,
    "balanced": _balanced,
    "circulant": _circulant,
    "depthwise": _depthwise,
}
"""By kernel: its multiply-adds, and (bytes that loads go through again and again, how many loads)."""


def _outputs(row: Row) -> int:
    shape = [int(n) for n in row["shape"].split("x")]
    return shape[-1] if row["op"] == "linear" else shape[1]


def _rows_of_planes(row: Row) -> int:
    """How many rows of input planes a tile of positions reads: the columns of the weight, but the three positions of a
    3x3 kernel that lie side by side read the same row. A plane of words holds four channels."""
    columns = int(row["weights"]) // max(1, _outputs(row)) // (4 if row.get("type") == "int8" else 1)
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
