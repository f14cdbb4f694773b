"""No argument, however wrong, gets past the native library: it raises, and the process lives."""

import subprocess
import sys
from pathlib import Path

import native_steps as steps
import numpy as np
import pytest
from native_steps import i32

from openwork.engine import _native

HUGE = 2**31 - 1
NO_FLOATS = np.zeros(0, np.float32)
ONE_FLOAT = np.zeros(1, np.float32)


def recurrent(directions=1):
    return steps.recurrent(hidden=19 if directions == 1 else 16, directions=directions, external=True)[0]


def refused(case, message, **arguments):
    program = _native.Program(len(case.arena), [b.size for b in case.buffers], 2)
    case.add(program)
    for which in ("x", "y"):  # a change of one field of a view
        inner = {
            key.removeprefix(f"{which}."): arguments.pop(key) for key in list(arguments) if key.startswith(f"{which}.")
        }
        if inner:
            arguments[which] = {**case.arguments[which], **inner}
    with pytest.raises(ValueError, match=message):
        case.add(program, **arguments)
    assert len(program) == 1


TAPS = [
    ("rows in a block", {"mb": 3}),
    ("rows in a block", {"mb": -8}),
    ("vectors in a tile", {"vectors": 0}),
    ("vectors in a tile", {"vectors": 13}),
    ("1 to 64 pieces", {"pieces": 0}),
    ("1 to 64 pieces", {"pieces": 65}),
    ("begin with 0", {"start": i32(1, 5, 5, 14)}),
    ("begin with 0", {"start": i32(0)}),
    ("begin with 0", {"start": i32()}),
    ("must not decrease", {"start": i32(0, 9, 5, 14)}),
    ("must not decrease", {"start": i32(0, -1, 5, 14)}),
    ("end with the number", {"start": i32(0, 5, 5, 13)}),
    ("end with the number", {"start": i32(0, 5, 5, HUGE)}),
    ("one value for each row", {"value": np.zeros(4 * 14 - 1, np.float32)}),
    ("one bias for each row", {"bias": np.zeros(8, np.float32)}),
    ("whole blocks", {"out": i32([0] * 11)}),
    ("one output plane", {"out": i32([0] * 8)}),
    ("output plane lies outside", {"out": i32([0] * 11, HUGE)}),
    ("output plane lies outside", {"out": i32([0] * 11, -1)}),
    ("one residual plane", {"residual": i32(0)}),
    ("residual plane lies outside", {"residual": i32([0] * 11, HUGE)}),
    ("residual plane lies outside", {"residual": i32([0] * 11, -1)}),
    ("a grid is", {"grid": [2, 30, 7, 4]}),
    ("sizes are out of range", {"grid": [0, 30, 7, 4, 5]}),
    ("sizes are out of range", {"grid": [2, 30, 4, 4, 5]}),
    ("sizes are out of range", {"grid": [1, 30, HUGE, HUGE, 5]}),
    ("images overlap", {"grid": [2, 1, 7, 4, 5]}),
    ("output plane lies outside", {"grid": [20, 30, 7, 4, 5]}),
    ("index lies outside", {"index": i32([0] * 13, 30)}),
    ("index lies outside", {"index": i32([0] * 13, -1)}),
    ("index lies outside", {"planes": [[]]}),
    ("tap reads outside", {"planes": [[[HUGE, 0, 30]]]}),
    ("tap reads outside", {"planes": [[[-1, 0, 30]]]}),
]
ROWS = [
    *(("power of two, 1 to 64", {"width": width}) for width in (-1, 0, 3, 48, 128, -(2**31))),
    ("samples in a block", {"samples": 0}),
    ("samples in a block", {"samples": 7}),
    ("batch", {"batch": 0}),
    ("batch", {"batch": -1}),
    ("batch", {"batch": 2**62}),
    ("input lies outside", {"x": -1}),
    ("outside the arena", {"x": 2**62}),
    ("output lies outside", {"y": -1}),
    ("output lies outside", {"y": 2**30 - 1}),
    ("input's stride", {"x_stride": -1}),
    ("input's stride", {"x_stride": 2**61}),
    ("output's stride", {"y_stride": 2**61}),
    ("outside the arena", {"batch": 2**30 - 1}),
    ("outside the arena", {"y_stride": 2**30 - 1, "x_stride": 2**30 - 1, "batch": 2**30 - 1}),
    ("column reads outside", {"index": i32([0] * 8, HUGE)}),
    ("column reads outside", {"index": i32([0] * 8, -1)}),
    ("one value for each output", {"value": ONE_FLOAT}),
    ("whole blocks", {"bias": ONE_FLOAT}),
    ("one bias for each output", {"bias": np.zeros(32, np.float32)}),
    ("must not decrease", {"start": i32(0, 8, 7, 9)}),
    ("whole blocks", {"bias": np.zeros(33, np.float32)}),
    ("not a whole number", {"batch": 2.5}),
    ("batch is not a whole number", {"batch": None}),
    ("not an array of float32", {"value": i32([0] * 144)}),
    ("not an array of int32", {"index": np.zeros(9, np.int8)}),
]
VECTORS = [
    ("samples in a block", {"samples": 0}),
    ("samples in a block", {"samples": 7}),
    ("features", {"features": 0}),
    ("features", {"features": 2**62}),
    ("input lies outside", {"features": 2**30 - 1}),
    ("batch", {"batch": 0}),
    ("batch", {"batch": 2**62}),
    ("input lies outside", {"x": -1}),
    ("outside the arena", {"x": 2**62}),
    ("input lies outside", {"x": 2**30 - 1}),
    ("output lies outside", {"y": -1}),
    ("output lies outside", {"y": 2**30 - 1}),
    ("input's stride", {"x_stride": -1}),
    ("output's stride", {"y_stride": 2**61}),
    ("outside the arena", {"y_stride": 2**30 - 1, "x_stride": 2**30 - 1, "batch": 2**30 - 1}),
    ("outputs must be at least 1", {"bias": NO_FLOATS}),
    ("output lies outside", {"bias": np.zeros(1500, np.float32)}),
    ("no slope", {"slope": ONE_FLOAT}),
]
BALANCED = [
    *VECTORS,
    *(("inputs in a window must be 4, 8 or 32", {"window": window}) for window in (-4, 0, 2, 16, 64, HUGE, -(2**31))),
    ("window is missing", {"window": ...}),
    ("begin with 0", {"start": i32(1, 7, 7, 32)}),
    ("begin with 0", {"start": i32()}),
    ("must not decrease", {"start": i32(0, 9, 7, 32)}),
    ("end with the number", {"start": i32(0, 7, 7, HUGE)}),
    ("every sixteen outputs", {"start": i32(0, 7, 32)}),
    ("every sixteen outputs", {"bias": np.zeros(32, np.float32)}),
    ("one value for each", {"value": np.zeros(16 * 32 - 1, np.float32)}),
    *(("window begins outside", {"begin": i32([0] * 31, begin)}) for begin in (-1, 3, 2**16, HUGE, -(2**31))),
    ("window begins outside", {"features": 32, "begin": i32([0] * 31, 2)}),
    ("end with the number", {"begin": i32([0] * 31)}),
    ("one position for each", {"index": i32([0] * (16 * 7 - 1))}),
    ("one position for each", {"index": i32([0] * (16 * 8))}),
    ("one position for each", {"index": i32()}),
    ("one position for each", {"window": 4, "features": 40}),
    ("one number for each output", {"place": i32([0] * 39)}),
    *(("every output once", {"place": i32(range(39), place)}) for place in (0, -1, 40, HUGE, -(2**31))),
]
CIRCULANT = [
    *VECTORS,
    *(("power of two, 4 to 128", {"block": block}) for block in (-8, 0, 2, 6, 256, HUGE, -(2**31))),
    ("block is missing", {"block": ...}),
    ("one value for each output", {"value": ONE_FLOAT}),
    ("one value for each output", {"features": 41}),
    ("one value for each output", {"block": 16}),
]
LYING = ([[0, 1, 0]], [[0, 1, -3]], [[0, 1, 2**25]], [[0, 1, 2**23]] * 3, [[2**31, 0, 1]], [[0, -(2**31), 3]])
DENSE = [
    ("blocks are out of range", {"columns": HUGE}),
    ("blocks are out of range", {"columns": -1}),
    ("columns is missing", {"columns": ...}),
    ("wrong length", {"columns": 1, "block_group": [0]}),
    ("groups are out of range", {"columns": 1, "block_group": [0, -1, 0]}),
    ("groups are out of range", {"columns": 1, "block_group": [0, 7, 0]}),
    ("index lies outside", {"columns": 31, "value": np.zeros(31 * 12, np.float32)}),
    ("one value for each row", {"columns": 3}),
]
LANES = [
    ("16 or 32", {"width": 64}),
    ("1 or 2 floats apart", {"step": 3}),
    ("1 or 2 floats apart", {"step": 0}),
    ("rows in a tile", {"tile": [0, 5]}),
    ("rows in a tile", {"tile": [4, 5]}),
    ("columns in a tile", {"tile": [1, 15]}),
    ("wrong length", {"tile": [1]}),
    ("shift is out of range", {"x_shift": 2**40}),
    ("shift is out of range", {"x_shift": -(2**30)}),
    ("images overlap", {"grid": [2, 1, 7, 4, 5]}),
    ("sizes are out of range", {"grid": [2, 30, 7, 0, 5]}),
    ("output plane lies outside", {"grid": [1, 30, 100, 30, 5]}),
    ("output plane lies outside", {"out": i32([0] * 20, HUGE)}),
    ("output plane lies outside", {"out": i32([0] * 20, -1)}),
    ("one bias for each output", {"out": i32()}),
    ("one bias for each output", {"out": i32([0] * 33)}),
    ("one residual plane", {"residual": i32(0)}),
    ("residual plane lies outside", {"residual": i32([0] * 20, HUGE)}),
    ("one value for each output", {"value": np.zeros(6 * 33, np.float32)}),
    ("input's stride", {"x_stride": -1}),
    ("input's pitch", {"x_pitch": 2**40}),
    ("tap reads outside", {"x_stride": 2**30 - 1}),
    ("tap reads outside", {"x_pitch": 2**30 - 1}),
    ("tap reads outside", {"planes": [[[-1, 0, 6]]]}),
    ("index lies outside", {"planes": [[[0, 0, 5]]]}),
    ("groups are out of range", {"block_group": [0, 2]}),
    ("start is missing", {"dense": False}),
]
WINOGRAD = [
    ("tile must be 2 or 4", {"tile": 3}),
    ("tile is missing", {"tile": ...}),
    ("16 or 32", {"width": 64}),
    ("tiles in a block", {"block": 0}),
    ("tiles in a block", {"block": -(2**31)}),
    ("images overlap", {"grid": [2, 1, 7, 6, 5]}),
    ("sizes are out of range", {"grid": [2, 54, 7, 0, 5]}),
    ("one phase", {"planes": []}),
    ("one phase", {"planes": [[]]}),
    ("one phase", {"planes": [[[3, 0, 5]], [[3, 0, 5]]]}),
    ("shift is out of range", {"shift": 2**40}),
    ("tile reads outside", {"shift": -4}),
    ("tile reads outside", {"shift": 2**29}),
    ("tile reads outside", {"planes": [[[2, 0, 5]]]}),
    ("tile reads outside", {"planes": [[[HUGE, 0, 5]]]}),
    ("output plane lies outside", {"out": i32([0] * 20, HUGE)}),
    ("output plane lies outside", {"out": i32([0] * 20, -1)}),
    ("one bias for each output", {"out": i32()}),
    ("one bias for each output", {"out": i32([0] * 33)}),
    ("one residual plane", {"residual": i32(0)}),
    ("residual plane lies outside", {"residual": i32([0] * 20, HUGE)}),
    ("one value for each point", {"value": ONE_FLOAT}),
    ("one value for each point", {"tile": 2}),
]
IMAGES = [
    ("unknown buffer", {"x.buffer": -2}),
    ("unknown buffer", {"y.buffer": HUGE}),
    ("unknown buffer", {"x.buffer": -2}),
    ("pitch", {"x.pitch": -1}),
    ("pitch", {"y.pitch": 2**62}),
    ("stride", {"x.stride": -1}),
    ("stride", {"y.stride": 2**62}),
    ("outside its buffer", {"x.pitch": 2**30 - 1}),
    ("outside its buffer", {"x.stride": 2**30 - 1}),
    ("outside its buffer", {"batch": 2**30 - 1}),
    ("batch", {"batch": 0}),
    ("batch", {"batch": 2**40}),
    ("outside its buffer", {"x.planes": i32(0, 0, HUGE)}),
    ("outside its buffer", {"y.planes": i32(0, -1, 0)}),
    ("as many output", {"y.planes": i32(0)}),
    ("at least one plane", {"x.planes": i32(), "y.planes": i32()}),
]
POOL = [
    *IMAGES,
    ("sizes must be positive", {"size": [0, 7, 3, 3]}),
    ("sizes must be positive", {"kernel": [-1, 2]}),
    ("sizes must be positive", {"stride": [2, HUGE]}),
    ("sizes must be positive", {"dilation": [0, 1]}),
    ("padding must not be negative", {"padding": [-1, 0]}),
    ("sizes are out of range", {"size": [6, 7, 2**24 - 1, 3], "stride": [2**24 - 1, 2]}),
    ("larger than the image", {"kernel": [2**24 - 1, 2]}),
    ("larger than the image", {"dilation": [1, 100]}),
    ("outside its buffer", {"size": [600, 7, 3, 3]}),
    ("outside its buffer", {"size": [6, 7, 300, 3]}),
    ("size has the wrong length", {"size": [6, 7, 3]}),
    ("kernel has the wrong length", {"kernel": [2, 3, 3]}),
]
DEPTHWISE = [
    *(bad for bad in IMAGES if bad[0] != "as many output"),
    ("as many input as output", {"y.planes": i32(0)}),
    ("as many input as output", {"x.planes": i32([0] * 7)}),
    *(("sizes of a depthwise convolution", {"size": size}) for size in (
        [0, 8, 5, 4], [9, -1, 5, 4], [9, 8, 0, 4], [9, 8, 5, -(2**31)], [2**20, 8, 5, 4], [9, 8, 5, HUGE],
    )),
    *(("kernel is too large", {"kernel": kernel}) for kernel in ([0, 3], [3, 16], [-1, -9], [HUGE, 3])),
    *(("padding must not be negative", {"before": before}) for before in ([-1, 0], [0, -1], [2**24, 0], [0, HUGE])),
    *(("stride must be 1 or 2", {"stride": stride}) for stride in (0, 3, -1, HUGE)),
    ("a kernel for each plane", {"weight": np.zeros(26, np.float32)}),
    ("a kernel for each plane", {"weight": NO_FLOATS}),
    ("a kernel for each plane", {"kernel": [3, 4]}),
    ("a bias for each plane", {"bias": ONE_FLOAT}),
    ("a bias for each plane", {"bias": np.zeros(4, np.float32)}),
    ("outside its buffer", {"size": [90, 8, 5, 4]}),
    ("outside its buffer", {"size": [9, 800, 5, 4]}),
    ("outside its buffer", {"size": [9, 8, 50, 4]}),
    ("outside its buffer", {"size": [9, 8, 5, 400]}),
    ("size has the wrong length", {"size": [9, 8, 5]}),
    ("kernel has the wrong length", {"kernel": [3]}),
    ("before has the wrong length", {"before": [1, 0, 0]}),
    ("weight is missing", {"weight": ...}),
]  # fmt: skip
COPY = [
    *IMAGES,
    ("at least one row", {"rows": i32(7, 0, 7)}),
    ("at least one row", {"columns": i32(5, -5, 5)}),
    ("outside its buffer", {"rows": i32(7, 7, HUGE)}),
    ("outside its buffer", {"columns": i32(5, 5, HUGE)}),
    ("outside its buffer", {"rows": i32(7, 7, HUGE), "step": [65535, 1], "x.pitch": 2**30 - 1}),
    ("outside its buffer", {"columns": i32(5, 5, HUGE), "step": [1, 65535]}),
    ("steps must be positive", {"step": [0, 1]}),
    ("steps must be positive", {"step": [1, HUGE]}),
    ("as many output", {"rows": i32(7)}),
]
MEAN = [
    ("unknown buffer", {"x.buffer": 0}),
    ("row and column", {"h": 0}),
    ("row and column", {"w": -1}),
    ("row and column", {"w": 6}),
    ("outside its buffer", {"h": HUGE}),
    ("output lies outside", {"y": 2**30 - 1}),
    ("output lies outside", {"y": 2**62}),
    ("output's stride", {"y_stride": -1}),
    ("output lies outside", {"y_stride": 2**30 - 1}),
    ("batch", {"batch": -5}),
]
HUGE_PLANES = i32([0] * 9, HUGE)
ATTENTION = [
    ("batch", {"batch": 0}),
    ("at least one query", {"queries": 0}),
    ("at least one key", {"keys": -1}),
    ("stride is out of range", {"q_stride": -1}),
    ("stride is out of range", {"k_stride": 2**40}),
    ("divide among the heads", {"heads": 3}),
    ("divide among the heads", {"heads": 0}),
    ("divide among the heads", {"q": i32()}),
    ("more than 256 channels", {"heads": 1, **dict.fromkeys("qkv", i32([0] * 257)), "out": i32([0] * 257)}),
    ("as many channels", {"k": i32(0)}),
    ("query reads outside", {"q": HUGE_PLANES}),
    ("key reads outside", {"k": HUGE_PLANES}),
    ("value reads outside", {"v": HUGE_PLANES}),
    ("output plane lies outside", {"out": HUGE_PLANES}),
    ("query reads outside", {"queries": 2**29}),
    ("key reads outside", {"keys": 2**29}),
    ("query reads outside", {"batch": 2**29}),
    ("unknown buffer", {"flags": 1}),
    ("mask lies outside", {"flags": 0, "keys": 45, "k_stride": 1}),
    ("too many chunks", {"batch": 2**29, "q_stride": 0, "k_stride": 0, "flags": None}),
]
BIAS = [
    ("rows are too short", {"bias_stride": 20}),
    ("one or all heads", {"bias_heads": 3}),
    ("one row for each key", {"bias": ONE_FLOAT}),
]
ROUNDED = {"quads": i32([0, 0]), "inverse": 1.0, "lo": 0, "hi": 255}
LAYER_NORM = [
    ("one plane of quads for every four", {**ROUNDED, "quads": i32(0)}),
    ("output plane lies outside", {**ROUNDED, "quads": i32(0, HUGE)}),
    ("inverse is missing", {**ROUNDED, "inverse": ...}),
    ("scale must be finite", {**ROUNDED, "inverse": 1e300}),
    ("0 to 255 or -128 to 127", {**ROUNDED, "lo": -1}),
    ("as many output", {**ROUNDED, "y": i32(0)}),
    ("need bounds -k to k", {**ROUNDED, "token": 0}),
    ("scales of tokens lie outside", {**ROUNDED, "token": HUGE, "lo": -127, "hi": 127}),
    ("scales of tokens lie outside", {**ROUNDED, "token": -2, "lo": -127, "hi": 127}),
    ("scales of tokens lie outside", {"token": 0}),
    ("as many output", {"y": ...}),
    ("as many output", {"y": i32(0)}),
    ("as many output", {"x": i32(), "y": i32()}),
    ("one weight and one bias", {"weight": ONE_FLOAT}),
    ("one weight and one bias", {"bias": ONE_FLOAT}),
    ("input plane lies outside", {"x": i32([0] * 6, HUGE)}),
    ("output plane lies outside", {"y": i32([0] * 6, -1)}),
    ("images overlap", {"grid": [2, 3, 30, 1, 21]}),
]
EMBEDDING = [
    ("batch", {"batch": 0}),
    ("at least one token", {"length": 0}),
    ("stride is out of range", {"stride": -1}),
    ("whole rows", {"table": ONE_FLOAT}),
    ("whole rows", {"table": NO_FLOATS}),
    ("unknown buffer", {"ids": 1}),
    ("unknown buffer", {"ids": -1}),
    ("tokens lie outside", {"batch": 3, "stride": 0}),
    ("output plane lies outside", {"stride": 2**29}),
    ("one row for each position", {"added": ONE_FLOAT}),
]
WORD_MEAN = [
    ("batch", {"batch": 0}),
    ("at least one token", {"length": 0}),
    ("stride is out of range", {"stride": -1}),
    ("at least one plane", {"x": i32()}),
    ("input plane lies outside", {"x": i32(0, HUGE)}),
    ("output lies outside", {"y": 2**29}),
    ("output lies outside", {"y": -1}),
    ("output's stride", {"y_stride": -1}),
    ("unknown buffer", {"flags": 1}),
    ("flags lie outside", {"batch": 3, "stride": 0, "y_stride": 0}),
]
UNIT = [
    ("batch", {"batch": 0}),
    ("at least one feature", {"features": 0}),
    ("input lies outside", {"x": 2**29}),
    ("output lies outside", {"y": 2**29}),
    ("input's stride", {"x_stride": -1}),
    ("output's stride", {"y_stride": -1}),
]
CONSTANT = [
    ("batch", {"batch": 0}),
    ("stride is out of range", {"stride": -1}),
    ("as many values", {"value": ONE_FLOAT}),
    ("output plane lies outside", {"batch": 2**29}),
    ("output plane lies outside", {"out": i32(0, 0, -1)}),
    ("at least one row", {"rows": 0}),
    ("as many values", {"rows": 4}),
    ("pitch is out of range", {"pitch": -1}),
    ("output plane lies outside", {"rows": 2, "pitch": 10**6}),
]
RECURRENT = [
    ("unknown cell 'gr'", {"cell": "gr"}),
    *(("16, 32 or 64", {"width": width}) for width in (-1, 0, 8, 48, 128, -(2**31))),
    ("samples in a block", {"samples": 0}),
    ("samples in a block", {"samples": 7}),
    ("time steps", {"steps": 0}),
    ("time steps", {"steps": 2**24}),
    ("batch", {"batch": 0}),
    ("hidden size", {"hidden": 0}),
    ("hidden size", {"hidden": 2**40}),
    ("directions must be 1 or 2", {"directions": 3}),
    ("one value for each gate", {"rest": ONE_FLOAT}),
    ("one value for each gate", {"directions": 2}),
    ("one value for each gate", {"hidden": 33}),
    ("working memory", {"work": -1}),
    ("working memory", {"work": 2**29}),
    ("projected input must lie in the arena", {"x.buffer": 0}),
    ("unknown buffer", {"x.buffer": -2}),
    ("unknown buffer", {"y.buffer": -2}),
    ("lies outside its buffer", {"x.base": -1}),
    ("lies outside its buffer", {"x.base": 2**29}),
    ("lies outside its buffer", {"y.step": 2**29}),
    ("lies outside its buffer", {"steps": 2**24 - 1}),
    ("stride is out of range", {"y.sample": -1}),
    ("stride is out of range", {"y.step": 2**31}),
    ("lies outside its buffer", {"h0": {"buffer": 0, "base": 0, "step": 0, "sample": 2**29}}),
    ("base is missing", {"hn": {"buffer": 0}}),
    ("one value for each unit", {"h_start": ONE_FLOAT}),
    ("row pointers must begin with 0", {"start": i32(1, 11, 22)}),
    ("every group of panels", {"start": i32(0, 1)}),
    ("every group of panels", {"start": i32()}),
    ("must not decrease", {"start": i32(0, 23, 22)}),
    ("column lies outside", {"index": i32([0] * 21, 32)}),
    ("column lies outside", {"index": i32([0] * 21, -1)}),
    ("group needs at least one panel", {"panels": i32(0, 4)}),
    ("group needs at least one panel", {"panels": i32(3, HUGE)}),
    ("one bias and one place", {"panels": i32(4, 1)}),
    ("group needs at least one panel", {"bias": ONE_FLOAT}),
    ("one bias and one place", {"bias": np.zeros(63, np.float32)}),
    ("one bias and one place", {"place": i32(0)}),
    ("one value for each output", {"value": ONE_FLOAT}),
    ("outside the gates", {"place": i32([96] * 64)}),
    ("outside the gates", {"place": i32([-2] * 64)}),
    ("must come last", {"place": i32(-1, 0, [-1] * 62)}),
    ("another part's units", {"place": i32(16, [-1] * 63)}),
    ("another part's units", {"place": i32([-1] * 63, 0)}),
    ("parts must cover all units", {"units": [0]}),
    ("parts must cover all units", {"units": [0, 16]}),
    ("parts must cover all units", {"units": [16, 16, 32]}),
    ("parts must cover all units", {"units": [0, 16, 48]}),
    ("parts must cover all groups", {"part": [0, 1, 1]}),
    ("parts must cover all groups", {"part": [1, 1, 2]}),
    ("follow each other", {"units": [0, 8, 32]}),
    ("follow each other", {"units": [0, 32, 32]}),
    ("follow each other", {"part": [0, 3, 2]}),
]
QUAD_TAPS = [
    ("scales of tokens lie outside", {"token": HUGE}),
    ("scales of tokens lie outside", {"token": -2}),
    ("rows in a block", {"mb": 3}),
    ("rows in a block", {"mb": -8}),
    ("vectors in a tile", {"vectors": 0}),
    ("vectors in a tile", {"vectors": 13}),
    ("begin with 0", {"start": i32(1, 5, 5, 14)}),
    ("must not decrease", {"start": i32(0, 9, 5, 14)}),
    ("end with the number", {"start": i32(0, 5, 5, HUGE)}),
    ("four values for each row", {"value": np.zeros(4 * 4 * 14 - 1, np.int8)}),
    ("value is not an array of int8", {"value": np.zeros(4 * 4 * 14, np.uint8)}),
    ("value is not an array of int8", {"value": np.zeros(4 * 4 * 14, np.float32)}),
    ("one scale and one bias", {"bias": np.zeros(8, np.float32)}),
    ("one scale and one bias", {"scale": np.zeros(13, np.float32)}),
    ("scale is not an array of float32", {"scale": i32([1] * 12)}),
    ("one output plane", {"out": i32(0, 0)}),
    ("one output plane", {"out": i32([0] * 4)}),
    ("whole blocks", {"mb": 8}),
    ("output plane lies outside", {"out": i32(0, 0, HUGE)}),
    ("output plane lies outside", {"out": i32(0, -1, 0)}),
    ("one residual plane", {"residual": i32(0)}),
    ("one residual plane", {"residual": i32([0] * 12)}),
    ("one residual plane", {"residual_kind": "none"}),
    ("one residual plane", {"residual_kind": "float"}),
    ("unknown kind of residual 'i8'", {"residual_kind": "i8"}),
    ("residual plane lies outside", {"residual": i32(0, 0, HUGE)}),
    ("residual plane lies outside", {"residual": i32(-1, 0, 0)}),
    ("signed is missing", {"signed": ...}),
    ("quads_out is missing", {"quads_out": ...}),
    ("whole numbers", {"lo": 0.5}),
    ("whole numbers", {"hi": 1e-3}),
    ("0 to 255 or -128 to 127", {"lo": -1}),
    ("0 to 255 or -128 to 127", {"hi": 256}),
    ("must not cross", {"lo": 9, "hi": 8}),
    ("lo is missing", {"lo": ...}),
    ("scale must be finite", {"act": ["silu"], "inverse": 1e300}),
    ("sizes are out of range", {"grid": [1, 30, HUGE, HUGE, 5]}),
    ("tap reads outside", {"grid": [20, 90, 7, 4, 5]}),
    ("index lies outside", {"index": i32([0] * 13, 30)}),
    ("tap reads outside", {"planes": [[[-1, 0, 30]]]}),
]
QUANTIZE = [
    ("one plane of quads", {"x": i32(0, 0)}),
    ("one plane of quads", {"y": i32(0)}),
    ("at least one plane", {"y": i32(), "x": i32()}),
    ("plane lies outside", {"x": i32([0] * 6, HUGE)}),
    ("plane lies outside", {"y": i32(0, -1)}),
    ("scale must be finite", {"inverse": 1e300}),
    ("0 to 255 or -128 to 127", {"lo": -128, "hi": 128}),
    ("slabs lie outside", {"grid": [1, 40, 7, 5, 6], "slabs": [4, 2**29, 2]}),
    ("batch of one", {"slabs": [2, 100, 2]}),
    ("fewer rows", {"grid": [1, 30, 7, 4, 5], "slabs": [2, 100, 1]}),
    ("plane lies outside", {"grid": [1, 30, 7, 4, 5], "slabs": [2, 100, 2]}),
]
DEQUANTIZE = [
    ("one plane of quads", {"x": i32(0)}),
    ("one plane of quads", {"y": i32(0)}),
    ("plane lies outside", {"x": i32(0, HUGE)}),
    ("plane lies outside", {"y": i32([0] * 6, -1)}),
    ("signed is missing", {"signed": ...}),
]
QUANTIZE_TOKENS = [
    ("need bounds -k to k", {"lo": -126}),
    ("need bounds -k to k", {"lo": 0, "hi": 0}),
    ("0 to 255 or -128 to 127", {"lo": -200, "hi": 200}),
    ("need inputs and outputs", {"x": i32()}),
    ("need inputs and outputs", {"quads": i32(), "y": i32()}),
    ("one plane of quads", {"quads": i32(0)}),
    ("as many output", {"y": i32([0] * 6)}),
    ("plane lies outside", {"x": i32([0] * 6, HUGE)}),
    ("plane lies outside", {"quads": i32(0, -1)}),
    ("plane lies outside", {"y": i32([0] * 6, HUGE)}),
    ("scales of tokens lie outside", {"token": -1}),
    ("scales of tokens lie outside", {"token": HUGE}),
    ("token is missing", {"token": ...}),
    ("images overlap", {"grid": [2, 3, 30, 1, 21]}),
]
BAD = [
    *((lambda: steps.quad_taps(residual="u8"), *bad) for bad in QUAD_TAPS),
    *((steps.quantize, *bad) for bad in QUANTIZE),
    *((steps.dequantize, *bad) for bad in DEQUANTIZE),
    *((steps.quantize_tokens, *bad) for bad in QUANTIZE_TOKENS),
    *((recurrent, *bad) for bad in RECURRENT),
    *((lambda: recurrent(directions=2), "the other direction", {"index": i32([c] * 20)}) for c in (0, 31)),
    *((lambda: steps.attention(flags=True), *bad) for bad in ATTENTION),
    *((lambda: steps.attention(bias_heads=2), *bad) for bad in BIAS),
    *((steps.layer_norm, *bad) for bad in LAYER_NORM),
    *((steps.embedding, *bad) for bad in EMBEDDING),
    *((steps.constant, *bad) for bad in CONSTANT),
    *((steps.word_mean, *bad) for bad in WORD_MEAN),
    *((steps.unit, *bad) for bad in UNIT),
    *((steps.taps, *bad) for bad in TAPS),
    *((lambda: steps.taps(counts=(5, 5, 5)).changed(dense=True, columns=5), *bad) for bad in DENSE),
    *((steps.dense, *bad) for bad in LANES),
    *((lambda: steps.winograd()[0], *bad) for bad in WINOGRAD),
    *((steps.taps, "out of range", {"out": stretches}) for stretches in LYING),
    *((steps.rows, *bad) for bad in ROWS),
    *((steps.balanced, *bad) for bad in BALANCED),
    *((steps.circulant, *bad) for bad in CIRCULANT),
    *((lambda: steps.rows(width=4), "column reads outside", {"index": i32([0] * 8, c)}) for c in (-1, 2**15, HUGE)),
    *((steps.pool, *bad) for bad in POOL),
    *((lambda: steps.pool(is_max=False), "one scale", bad) for bad in ({"scale_y": NO_FLOATS}, {"scale_x": ONE_FLOAT})),
    *((steps.depthwise, *bad) for bad in DEPTHWISE),
    *((lambda: steps.copy()[0], *bad) for bad in COPY),
    *((lambda: steps.mean()[0], *bad) for bad in MEAN),
]


@pytest.mark.parametrize(("case", "message", "arguments"), BAD, ids=lambda v: str(v)[:40] if isinstance(v, str) else "")
def test_a_wrong_argument_is_refused_and_named(case, message, arguments):
    refused(case(), message, **arguments)


def test_the_unchanged_cases_are_accepted():
    for case in steps.every_case().values():
        case.run("auto", threads=2)


def test_no_step_writes_into_an_input():
    refusing = set()
    for name, case in steps.every_case().items():
        sizes = [b.size for b in case.buffers]
        program = _native.Program(len(case.arena), sizes, 1, "auto", inputs=list(range(len(sizes))))
        try:
            case.add(program)
        except ValueError as error:
            assert str(error) == "a step writes into an input"
            refusing.add(name)
            continue
        buffers = [b.copy() for b in case.buffers]
        program.run(0, 1, buffers)
        for before, after in zip(case.buffers, buffers, strict=True):
            np.testing.assert_array_equal(before.view(np.int32), after.view(np.int32))
    assert refusing >= {"copy_out", "recurrent_outside"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"arena": 0, "externals": [], "threads": 1}, "arena"),
        ({"arena": 2**31, "externals": [], "threads": 1}, "arena"),
        ({"arena": -1, "externals": [], "threads": 1}, "arena"),
        ({"arena": 16, "externals": [0], "threads": 1}, "external buffer"),
        ({"arena": 16, "externals": [2**40], "threads": 1}, "external buffer"),
        ({"arena": 16, "externals": [], "threads": 0}, "threads"),
        ({"arena": 16, "externals": [], "threads": 1025}, "threads"),
        ({"arena": 16, "externals": [], "threads": 1, "isa": "abacus"}, "'abacus' is not available.*base"),
    ],
)
def test_a_wrong_program_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _native.Program(**arguments)


def test_wrong_runs_are_refused():
    case = steps.copy(external=True)[0]
    program = _native.Program(len(case.arena), [case.buffers[0].size], 1)
    case.add(program)
    buffer = case.buffers[0]
    for begin, end in ((0, 2), (-1, 1), (1, 0), (2, 2)):
        with pytest.raises(ValueError, match="no such steps"):
            program.run(begin, end, [buffer])
    for buffers in ([], [buffer, buffer]):
        with pytest.raises(ValueError, match="every external buffer"):
            program.run(0, 1, buffers)
    with pytest.raises(ValueError, match="wrong size"):
        program.run(0, 1, [buffer[:-1].copy()])
    with pytest.raises(ValueError, match="no such step"):
        program.time_step(1, 1, [buffer])
    with pytest.raises(ValueError, match="no such step"):
        case.add(program, at=1)
    read_only = buffer.copy()
    read_only.flags.writeable = False
    for odd in (buffer.astype(np.float64), buffer[::-1], read_only):
        with pytest.raises(TypeError):
            program.run(0, 1, [odd])


def test_random_arguments_never_crash():
    """In a process of its own, so that a crash is a failure of this test and not the end of all."""
    script = Path(__file__).parent / "fuzz_steps.py"
    done = subprocess.run([sys.executable, str(script), "6000"], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}"
    refused, ran = map(int, done.stdout.split()[-2:])
    assert refused > 3000 and ran > 300, done.stdout
