"""Random steps that add up planes or features times weights."""

import itertools
import math

import numpy as np

from openwork.compiler import winograd as points

from .case import Case, f32, i32, inside, stretches


def taps(
    seed: int = 0,
    mb: int = 4,
    vectors: int = 3,
    counts: tuple[int, ...] = (5, 0, 9),
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    residual: bool = True,
    clamp: tuple[float, float] = (-math.inf, math.inf),
    row_chunks: int = 1,
    tile_chunks: int = 1,
    pieces: int = 1,
) -> Case:
    """Blocks of `mb` rows with `counts` taps each over the positions of `grid` (batch, stride, pitch, h, w)."""
    rng = np.random.default_rng(seed)
    reach, rows, room = len(inside(grid)), mb * len(counts), 400
    inputs = room + reach
    residuals = inputs + np.arange(rows) * reach
    outs = inputs + (rows + rng.permutation(rows)) * reach
    table = rng.integers(0, room + 1, 30)
    arguments = {
        "mb": mb,
        "vectors": vectors,
        "row_chunks": row_chunks,
        "tile_chunks": tile_chunks,
        "pieces": pieces,
        "start": i32(0, *np.cumsum(counts)),
        "index": i32(rng.integers(0, len(table), sum(counts))),
        "planes": [stretches(i32(table))],
        "shifts": [[0, 0]],
        "value": f32(sum(counts) * mb, rng),
        "bias": f32(rows, rng),
        "out": i32(outs),
        "residual": i32(residuals) if residual else i32(),
        "grid": list(grid),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("taps", arguments, f32(inputs + 2 * rows * reach, rng))


def dense(
    seed: int = 0,
    width: int = 16,
    step: int = 1,
    tile: tuple[int, int] = (2, 5),
    outputs: int = 21,
    columns: int = 6,
    groups: int = 1,
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    residual: bool = True,
    clamp: tuple[float, float] = (-math.inf, math.inf),
    row_chunks: int = 1,
    tile_chunks: int = 1,
) -> Case:
    """Panels of `width` outputs, `columns` weights each, over the pixels of `grid` (batch, stride, pitch, h, w)."""
    rng = np.random.default_rng(seed)
    batch, stride, pitch, h, w = grid
    panels = -(-outputs // width)
    x_pitch = step * pitch + 1
    x_stride = h * x_pitch + 2
    reach, room = batch * max(stride, x_stride) + w * step, 300
    outs = room + reach + (outputs + rng.permutation(outputs)) * reach
    arguments = {
        "width": width,
        "step": step,
        "tile": list(tile),
        "row_chunks": row_chunks,
        "tile_chunks": tile_chunks,
        "dense": True,
        "columns": columns,
        "block_group": rng.permutation(np.arange(panels) % min(groups, panels)).tolist(),
        "planes": [stretches(i32(rng.integers(0, room + 1, columns * groups)))],
        "shifts": [[0, 0]],
        "x_stride": x_stride,
        "x_pitch": x_pitch,
        "value": f32(panels * columns * width, rng),
        "bias": f32(panels * width, rng),
        "out": i32(outs),
        "residual": i32(room + reach + np.arange(outputs) * reach) if residual else i32(),
        "grid": list(grid),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("dense", arguments, f32(room + reach + 2 * outputs * reach, rng))


def winograd(
    seed: int = 0,
    tile: int = 4,
    width: int = 16,
    channels: int = 5,
    outputs: int = 21,
    block: int = 3,
    grid: tuple[int, int, int, int, int] = (2, 54, 7, 6, 5),
    residual: bool = True,
    clamp: tuple[float, float] = (-math.inf, math.inf),
    row_chunks: int = 1,
    tile_chunks: int = 1,
) -> tuple[Case, np.ndarray]:
    """A 3 x 3 convolution on `grid` (batch, stride, pitch, h, w), and its weights [out, channels, 3, 3]."""
    rng = np.random.default_rng(seed)
    batch, stride, pitch, h, w = grid
    reach = (batch - 1) * stride + (h + 1) * pitch + w + 2  # floats that the convolution reads of a channel
    weight = f32((outputs, channels, 3, 3), rng)
    outs = reach * (channels + outputs + rng.permutation(outputs))
    arguments = {
        "tile": tile,
        "width": width,
        "block": block,
        "row_chunks": row_chunks,
        "tile_chunks": tile_chunks,
        "planes": [stretches(i32(reach * rng.permutation(channels) + 3))],
        "shift": -3,
        **points.pack(weight.reshape(outputs, -1), f32(outputs, rng), tile, width),
        "out": i32(outs),
        "residual": i32(reach * (channels + np.arange(outputs))) if residual else i32(),
        "grid": list(grid),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("winograd", arguments, f32(reach * (channels + 2 * outputs), rng)), weight


def convolved(case: Case, weight: np.ndarray) -> np.ndarray:
    """The arena after a case of `winograd`, by the definition of a convolution, in float64."""
    batch, stride, pitch, h, w = case.arguments["grid"]
    at = (np.arange(batch)[:, None, None] * stride + np.arange(h)[:, None] * pitch + np.arange(w)).reshape(-1)
    planes = np.array([plane + case.arguments["shift"] for plane, _, _ in case.arguments["planes"][0]])
    arena = case.arena.astype(np.float64)
    taps = arena[planes[:, None, None, None] + np.arange(3)[:, None, None] * pitch + np.arange(3)[:, None] + at]
    sums = np.einsum("ocyx,cyxp->op", weight.astype(np.float64), taps)
    sums += case.arguments["bias"][: len(weight), None]
    if len(case.arguments["residual"]):
        sums += arena[case.arguments["residual"][:, None] + at]
    arena[case.arguments["out"][:, None] + at] = np.clip(sums, case.arguments["lo"], case.arguments["hi"])
    return arena


def _vectors(features: int, outputs: int, batch: int) -> tuple[dict[str, int], int]:
    """Where a step finds its vectors of features and puts those of outputs, with gaps between them, and the floats of
    an arena that holds all."""
    x_stride, y_stride = features + 3, outputs + 5
    y = 11 + batch * x_stride
    return {"batch": batch, "x": 11, "x_stride": x_stride, "y": y, "y_stride": y_stride}, y + batch * y_stride


def features_alone(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """An arena for a case of `balanced` or `circulant` with the features alone, all else NaN, and where the outputs
    go."""
    a, arena = case.arguments, np.full_like(case.arena, np.nan)
    written = np.zeros(len(arena), bool)
    for n in range(a["batch"]):
        x = slice(a["x"] + n * a["x_stride"], a["x"] + n * a["x_stride"] + a["features"])
        arena[x] = case.arena[x]
        written[a["y"] + n * a["y_stride"] :][: len(a["bias"])] = True
    return arena, written


def _product(case: Case, matrix: np.ndarray) -> np.ndarray:
    """The arena after a case whose weights are `matrix` [outputs, features], in float64."""
    a, arena = case.arguments, case.arena.astype(np.float64)
    places = a.get("place", np.arange(len(matrix)))
    for n in range(a["batch"]):
        x = arena[a["x"] + n * a["x_stride"] :][: matrix.shape[1]]
        with np.errstate(invalid="ignore"):  # infinity times zero
            sums = (matrix * x).sum(1) + a["bias"]
        arena[a["y"] + n * a["y_stride"] + places] = np.clip(sums, a["lo"], a["hi"])
    return arena


def rows(
    seed: int = 0,
    width: int = 16,
    samples: int = 2,
    batch: int = 3,
    counts: tuple[int, ...] = (7, 0, 2),
    row_chunks: int = 1,
    clamp: tuple[float, float] = (-math.inf, math.inf),
    features: int = 40,
) -> Case:
    """Panels of `width` outputs with `counts` of the `features` columns each."""
    rng = np.random.default_rng(seed)
    outputs = width * len(counts)
    places, room = _vectors(features, outputs, batch)
    arguments = {
        "width": width,
        "row_chunks": row_chunks,
        "samples": samples,
        **places,
        "start": i32(0, *np.cumsum(counts)),
        "index": i32(rng.integers(0, features, sum(counts))),
        "value": f32(sum(counts) * width, rng),
        "bias": f32(outputs, rng),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("rows", arguments, f32(room, rng))


def balanced(
    seed: int = 0,
    window: int = 32,
    features: int = 40,
    outputs: int = 40,
    counts: tuple[int, ...] = (7, 0, 25),
    samples: int = 2,
    batch: int = 3,
    row_chunks: int = 1,
    placed: bool = False,
    clamp: tuple[float, float] = (-math.inf, math.inf),
) -> Case:
    """Panels of 16 outputs with `counts` slots each, one for every 16 of the outputs."""
    rng = np.random.default_rng(seed)
    slots, each = sum(counts), 32 // SLOT_BITS[window]
    places, room = _vectors(features, outputs, batch)
    lines = sum(-(-count // each) for count in counts)
    arguments = {
        "window": window,
        "features": features,
        "samples": samples,
        "row_chunks": row_chunks,
        **places,
        "start": i32(0, *np.cumsum(counts)),
        "begin": rng.integers(0, -(-features // (window // 2)), slots).astype(np.uint16),
        "index": rng.integers(-(2**31), 2**31, 16 * lines).astype(np.int32),
        "value": f32(16 * slots, rng),
        "bias": f32(outputs, rng),
        **({"place": rng.permutation(outputs).astype(np.int32)} if placed else {}),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("balanced", arguments, f32(room, rng))


SLOT_BITS = {4: 2, 8: 3, 32: 5}
"""Bits of a position in a window."""


def slotted(case: Case) -> np.ndarray:
    """The arena after a case of `balanced`, by the matrix that its slots stand for, in float64."""
    a = case.arguments
    bits, outputs, begins = SLOT_BITS[a["window"]], len(a["bias"]), a["begin"].astype(int)
    matrix = np.zeros((outputs, a["features"] + 2 * a["window"]))
    words, line = a["index"].view(np.uint32).reshape(-1, 16), 0
    for panel, (first, last) in enumerate(itertools.pairwise(a["start"].tolist())):
        rows = np.arange(16 * panel, min(16 * panel + 16, outputs))
        for slot in range(first, last):
            at, shift = divmod(slot - first, 32 // bits)
            position = words[line + at] >> np.uint32(shift * bits) & np.uint32(a["window"] - 1)
            column = begins[slot] * (a["window"] // 2) + position.astype(int)
            matrix[rows, column[: len(rows)]] += a["value"][16 * slot :][: len(rows)]
        line += -(-(last - first) // (32 // bits))
    return _product(case, matrix[:, : a["features"]])


def circulant(
    seed: int = 0,
    block: int = 8,
    features: int = 40,
    outputs: int = 150,
    samples: int = 2,
    batch: int = 3,
    row_chunks: int = 1,
    clamp: tuple[float, float] = (-math.inf, math.inf),
) -> Case:
    """A block-circulant matrix [outputs, features] on rows of features."""
    rng = np.random.default_rng(seed)
    places, room = _vectors(features, outputs, batch)
    arguments = {
        "block": block,
        "features": features,
        "samples": samples,
        "row_chunks": row_chunks,
        **places,
        "value": f32(-(-outputs // block) * -(-features // block) * block, rng),
        "bias": f32(outputs, rng),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("circulant", arguments, f32(room, rng))


def multiplied(case: Case) -> np.ndarray:
    """The arena after a case of `circulant`, by the matrix that it stands for, in float64."""
    a = case.arguments
    block, features, outputs = a["block"], a["features"], len(a["bias"])
    row, column = np.arange(outputs)[:, None], np.arange(features)
    first = a["value"].astype(np.float64).reshape(-1, -(-features // block), block)
    return _product(case, first[row // block, column // block, (row - column) % block])
