"""Random steps of every kernel family, as arguments of the native constructors, and one way to run them."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from openwork.compiler import winograd as points
from openwork.compiler.recurrent import Cells, pack
from openwork.engine import _native

FAST = tuple(isa for isa in _native.isas() if isa != "reference")
"""Instruction sets whose kernels are compared with the naive reference."""

UNIT = _native.UNIT

WIDTHS = (1, 2, 4, 8, 16, 32, 64)
"""Outputs in a panel of `rows`."""


@dataclass
class Case:
    """One step, the arena and the buffers outside it that it works on. Arguments named in
    `ARRAYS` are the step's arrays, the others its fields."""

    family: str
    arguments: dict[str, Any]
    arena: np.ndarray
    buffers: list[np.ndarray] = field(default_factory=list)

    def add(self, program: Any, at: int = -1, **changes: Any) -> int:
        """Make the step a part of a native program, with some arguments replaced; `...` leaves one out."""
        fields, arrays = {}, {}
        for name, value in {**self.arguments, **changes}.items():
            if value is ...:
                continue
            if name in ARRAYS:
                arrays[name] = value
            else:
                fields[name] = _field(name, value)
        return program.add(self.family, json.dumps(fields), arrays, at)

    def run(self, isa: str, threads: int = 1, arena: np.ndarray | None = None) -> np.ndarray:
        """The arena after the step, followed by the buffers."""
        program = _native.Program(len(self.arena), [b.size for b in self.buffers], threads, isa)
        self.add(program)
        buffers = [b.copy() for b in self.buffers]
        program.arena()[:] = self.arena if arena is None else arena
        program.run(0, len(program), buffers)
        return np.concatenate([program.arena().copy(), *(b.reshape(-1) for b in buffers)])

    def changed(self, **arguments: Any) -> "Case":
        """The same with some arguments replaced."""
        return Case(self.family, {**self.arguments, **arguments}, self.arena, self.buffers)


ARRAYS = {"start", "index", "value", "bias", "scale_y", "scale_x", "weight", "table", "added", "slope"}
ARRAYS |= {"panels", "place", "rest", "h_start", "c_start", "row", "row_share", "column", "column_share"}
POSITIONS = {
    "out",
    "residual",
    "rows",
    "columns",
    "planes",
    "from",
    "q",
    "k",
    "v",
    "x",
    "y",
    "a",
    "b",
    "first",
    "length",
}
"""Fields that hold positions; cases keep them as arrays."""


def _field(name: str, value: Any) -> Any:
    """A field as JSON: positions as stretches of one, no bound as null."""
    if isinstance(value, dict):
        return {key: _field(key, inner) for key, inner in value.items()}
    if name in POSITIONS and isinstance(value, np.ndarray):
        return stretches(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, float) and math.isinf(value):
        return None
    return value


def stretches(positions: np.ndarray) -> list[list[int]]:
    """Positions as an artifact's stretches [first, stride, count], one each."""
    return [[position, 0, 1] for position in positions.tolist()]


def i32(*values: Any) -> np.ndarray:
    """Numbers and lists of them as one list of positions."""
    return np.concatenate([np.zeros(0), *map(np.atleast_1d, values)]).astype(np.int32)


def f32(shape: Any, rng: np.random.Generator) -> np.ndarray:
    """Random floats."""
    return rng.standard_normal(shape).astype(np.float32)


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


def inside(grid: tuple[int, ...]) -> np.ndarray:
    """Which positions of a grid, up to a whole unit, are pixels."""
    batch, stride, pitch, h, w = grid
    count = (batch - 1) * stride + (h - 1) * pitch + w
    flags = np.zeros(-(-count // UNIT) * UNIT, bool)
    for n in range(batch):
        for y in range(h):
            flags[n * stride + y * pitch :][:w] = True
    return flags


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
    x_stride, y_stride = features + 3, outputs + 5
    y = 11 + batch * x_stride
    arguments = {
        "width": width,
        "row_chunks": row_chunks,
        "samples": samples,
        "batch": batch,
        "x": 11,
        "x_stride": x_stride,
        "y": y,
        "y_stride": y_stride,
        "start": i32(0, *np.cumsum(counts)),
        "index": i32(rng.integers(0, features, sum(counts))),
        "value": f32(sum(counts) * width, rng),
        "bias": f32(outputs, rng),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("rows", arguments, f32(y + batch * y_stride, rng))


def view(
    which: str, buffer: int, shape: tuple[int, int, int, int], gap: int, base: int = 0
) -> tuple[dict[str, Any], int]:
    """Arguments that describe an image stack whose rows lie `gap` floats apart, and where it ends."""
    n, c, h, w = shape
    pitch = w + gap
    stride = h * pitch + gap
    plane = n * stride + gap
    offsets = [base + gap + i * plane for i in range(c)]
    found = {"buffer": buffer, "pitch": pitch, "stride": stride, "planes": i32(offsets)}
    return {which: found}, base + gap + c * plane


def place(stack: np.ndarray, into: np.ndarray, where: dict[str, Any], which: str) -> None:
    """Write an [N, C, H, W] array to where a view says."""
    for pixels, image in _planes(stack.shape, into, where, which):
        pixels[...] = stack[image]


def read(shape: tuple[int, ...], source: np.ndarray, where: dict[str, Any], which: str) -> np.ndarray:
    """The [N, C, H, W] array that lies where a view says."""
    found = np.empty(shape, np.float32)
    for pixels, image in _planes(shape, source, where, which):
        found[image] = pixels
    return found


def _planes(shape, flat, where, which):
    n, c, h, w = shape
    pitch, stride, offset = (where[which][k] for k in ("pitch", "stride", "planes"))
    for image in range(n):
        for channel in range(c):
            begin = offset[channel] + image * stride
            pixels = np.lib.stride_tricks.as_strided(flat[begin:], (h, w), (4 * pitch, 4))
            yield pixels, (image, channel)


def pool(
    seed: int = 0,
    is_max: bool = True,
    shape: tuple[int, int, int, int] = (2, 3, 6, 7),
    out: tuple[int, int] = (3, 3),
    kernel: tuple[int, int] = (2, 3),
    stride: tuple[int, int] = (2, 2),
    padding: tuple[int, int] = (0, 1),
    dilation: tuple[int, int] = (1, 1),
    external: bool = False,
    x: np.ndarray | None = None,
) -> Case:
    """A pooling from a buffer outside (or the arena) into the arena."""
    rng = np.random.default_rng(seed)
    x = f32(shape, rng) if x is None else x
    source, end = view("x", 0 if external else -1, shape, gap=2)
    target, total = view("y", -1, (*shape[:2], *out), gap=3, base=0 if external else end)
    arena = f32(total, rng)
    buffers = [f32(end, rng)] if external else []
    place(x, buffers[0] if external else arena, source, "x")
    scales = [np.zeros(0, np.float32)] * 2 if is_max else [f32(size, rng) for size in out]
    arguments = dict(
        max=is_max,
        **source,
        **target,
        batch=shape[0],
        size=[*shape[2:], *out],
        kernel=list(kernel),
        stride=list(stride),
        padding=list(padding),
        dilation=list(dilation),
        scale_y=scales[0],
        scale_x=scales[1],
    )
    return Case("pool", arguments, arena, buffers)


def copy(
    seed: int = 0,
    shape: tuple[int, int, int, int] = (2, 3, 7, 5),
    step: tuple[int, int] = (1, 1),
    external: bool = False,
) -> tuple[Case, np.ndarray]:
    """A copy of every `step`-th pixel, and what must arrive."""
    rng = np.random.default_rng(seed)
    x = f32(shape, rng)
    wanted = x[:, :, :: step[0], :: step[1]]
    source, end = view("x", -1, shape, gap=2)
    target, total = view("y", 0 if external else -1, wanted.shape, gap=1, base=0 if external else end)
    arena = f32(end if external else total, rng)
    place(x, arena, source, "x")
    channels = shape[1]
    arguments = dict(
        **source,
        **target,
        batch=shape[0],
        step=list(step),
        rows=i32([wanted.shape[2]] * channels),
        columns=i32([wanted.shape[3]] * channels),
    )
    return Case("copy", arguments, arena, [f32(total, rng)] if external else []), wanted


def mean(seed: int = 0, shape: tuple[int, int, int, int] = (2, 5, 4, 3)) -> tuple[Case, np.ndarray]:
    """A mean over height and width of planes with zero padding, and what must come out, [N, C]."""
    rng = np.random.default_rng(seed)
    x = f32(shape, rng)
    source, end = view("x", -1, shape, gap=2)
    arena = np.zeros(end + shape[0] * (shape[1] + 2), np.float32)
    place(x, arena, source, "x")
    scale = 1 / (shape[2] * shape[3])
    arguments = dict(**source, batch=shape[0], y=end, y_stride=shape[1] + 2, h=shape[2], w=shape[3], scale=scale)
    return Case("mean", arguments, arena), x.mean(axis=(2, 3))


def attention(
    seed: int = 0,
    batch: int = 2,
    heads: int = 2,
    channels: int = 5,
    queries: int = 20,
    keys: int = 37,
    flags: bool = False,
    bias_heads: int = 0,
    scale: float = 0.4,
) -> Case:
    """Attention of `heads` heads with `channels` channels each; keys masked by flags, or by a bias."""
    rng = np.random.default_rng(seed)
    q_stride, k_stride = queries + 3, keys + 1
    q_plane, k_plane = batch * q_stride + UNIT, batch * k_stride + 8
    total = heads * channels
    q = np.arange(total) * q_plane
    k = total * q_plane + np.arange(2 * total) * k_plane
    out = k[-1] + k_plane + np.arange(total) * q_plane
    arguments = {
        "batch": batch, "heads": heads, "queries": queries, "keys": keys, "q_stride": q_stride, "k_stride": k_stride,
        "scale": scale, "q": i32(q), "k": i32(rng.permutation(k[:total])), "v": i32(k[total:]), "out": i32(out),
    }  # fmt: skip
    buffers = []
    if flags:
        arguments |= {"flags": 0, "on": 0.0, "off": -math.inf}
        buffers = [rng.integers(0, 2, batch * keys).astype(np.int32).view(np.float32)]
    if bias_heads:
        width = -(-queries // UNIT) * UNIT
        arguments |= {"bias": f32(bias_heads * keys * width, rng), "bias_stride": width, "bias_heads": bias_heads}
    return Case("attention", arguments, f32(int(out[-1]) + q_plane, rng), buffers)


def layer_norm(seed: int = 0, channels: int = 7, grid: tuple[int, int, int, int, int] = (2, 30, 30, 1, 21)) -> Case:
    """Layer norm over the channels of every position of a grid."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    arguments = {
        "x": i32(np.arange(channels) * reach),
        "y": i32((channels + rng.permutation(channels)) * reach),
        "weight": f32(channels, rng),
        "bias": f32(channels, rng),
        "eps": 1e-5,
        "grid": list(grid),
    }
    return Case("layer_norm", arguments, f32(2 * channels * reach, rng))


def embedding(seed: int = 0, batch: int = 2, length: int = 19, channels: int = 5, added: bool = True) -> Case:
    """Rows of a table at random tokens, as planes."""
    rng = np.random.default_rng(seed)
    stride, words = length + 2, 11
    arguments = {
        "batch": batch,
        "length": length,
        "stride": stride,
        "ids": 0,
        "out": i32(rng.permutation(channels) * batch * stride),
        "table": f32(words * channels, rng),
    }
    if added:
        arguments["added"] = f32(length * channels, rng)
    ids = rng.integers(0, words, batch * length).astype(np.int32)
    return Case("embedding", arguments, f32(channels * batch * stride, rng), [ids.view(np.float32)])


def constant(seed: int = 0, batch: int = 2, channels: int = 3, length: int = 6, rows: int = 1) -> Case:
    """Planes that are written once, when the program is made."""
    rng = np.random.default_rng(seed)
    stride = rows * (length + 1)
    arguments = {"batch": batch, "stride": stride, "out": i32(np.arange(channels) * batch * stride)}
    if rows > 1:
        arguments |= {"rows": rows, "pitch": length + 1}
    return Case(
        "constant", arguments | {"value": f32(channels * rows * length, rng)}, f32(channels * batch * stride, rng)
    )


def word_mean(seed: int = 0, batch: int = 2, length: int = 21, channels: int = 5, least: float = 1e-9) -> Case:
    """Mean over the tokens that flags name."""
    rng = np.random.default_rng(seed)
    stride = length + 3
    arguments = {
        "x": i32(rng.permutation(channels) * batch * stride), "batch": batch, "length": length, "stride": stride,
        "flags": 0, "y": channels * batch * stride, "y_stride": channels + 1, "least": least,
    }  # fmt: skip
    flags = rng.integers(0, 2, batch * length).astype(np.int32).view(np.float32)
    return Case("word_mean", arguments, f32(channels * batch * stride + batch * (channels + 1), rng), [flags])


def unit(seed: int = 0, batch: int = 2, features: int = 37, least: float = 1e-12) -> Case:
    """Vectors divided by their length."""
    rng = np.random.default_rng(seed)
    stride, y = features + 2, batch * (features + 2)
    arguments = {
        "batch": batch, "features": features, "x": 0, "x_stride": stride, "y": y, "y_stride": stride, "least": least,
    }  # fmt: skip
    return Case("unit", arguments, f32(2 * y, rng))


def pointwise(
    seed: int = 0,
    act: list[Any] | None = None,
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    planes: int = 3,
) -> Case:
    """An activation of planes in any order, from one half of the arena to the other."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    places = 5 + reach * rng.permutation(2 * planes)
    arguments = {
        "act": act or ["leaky_relu", 0.25],
        "x": i32(places[:planes]),
        "y": i32(places[planes:]),
        "grid": list(grid),
    }
    return Case("pointwise", arguments, f32(5 + 2 * planes * reach, rng))


def scale(seed: int = 0, batch: int = 3, features: int = 37, act: list[Any] | None = None) -> Case:
    """Rows of features, each times a weight and plus a bias of its own."""
    rng = np.random.default_rng(seed)
    stride = -(-features // UNIT) * UNIT
    arguments = {
        "x": i32(3),
        "y": i32(3 + batch * stride),
        "grid": [batch, stride, stride, 1, features],
        "weight": f32(stride, rng),
        "bias": f32(stride, rng),
        **({"act": act} if act else {}),
    }
    return Case("pointwise", arguments, f32(3 + 2 * batch * stride, rng))


def binary(
    seed: int = 0,
    function: str = "mul",
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    planes: int = 3,
    each: bool = False,
) -> Case:
    """A function of two stacks of planes in any order; with `each` the second is one number a plane and sample."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    places = 5 + reach * rng.permutation(3 * planes)
    end = 5 + 3 * planes * reach
    arguments = {
        "function": function,
        "a": i32(places[:planes]),
        "b": i32(end + rng.permutation(planes)) if each else i32(places[planes : 2 * planes]),
        "y": i32(places[2 * planes :]),
        "grid": list(grid),
        **({"b_stride": planes + 2} if each else {}),
    }
    return Case("binary", arguments, f32(end + grid[0] * (planes + 2), rng))


def interleave(
    seed: int = 0,
    shape: tuple[int, int, int, int] = (2, 3, 7, 5),
    factor: tuple[int, int] = (2, 3),
) -> tuple[Case, np.ndarray]:
    """Planes that make up larger ones of `shape`, and what must come out."""
    rng = np.random.default_rng(seed)
    n, c, h, w = shape
    small = -(-h // factor[0]), -(-w // factor[1])
    x = f32((n, c * factor[0] * factor[1], *small), rng)
    whole = x.reshape(n, c, *factor, *small).transpose(0, 1, 4, 2, 5, 3)
    wanted = whole.reshape(n, c, small[0] * factor[0], small[1] * factor[1])[:, :, :h, :w]
    source, end = view("x", -1, x.shape, gap=2)
    target, total = view("y", -1, shape, gap=1, base=end)
    arena = f32(total, rng)
    place(x, arena, source, "x")
    return Case("interleave", dict(**source, **target, batch=n, factor=list(factor), size=[h, w]), arena), wanted


def bilinear(
    seed: int = 0, shape: tuple[int, int, int, int] = (2, 3, 7, 5), size: tuple[int, int] = (9, 11)
) -> tuple[Case, np.ndarray]:
    """Images brought to another size with random places and shares, and what must come out."""
    rng = np.random.default_rng(seed)
    x = f32(shape, rng)
    source, end = view("x", -1, shape, gap=2)
    target, total = view("y", -1, (*shape[:2], *size), gap=1, base=end)
    arena = f32(total, rng)
    place(x, arena, source, "x")
    axes, wanted = {}, x.astype(np.float64)
    for axis, (name, before, after) in enumerate(zip(("row", "column"), shape[2:], size, strict=True)):
        at, share = rng.integers(0, before, after), rng.random(after).astype(np.float32)
        axes |= {name: i32(at), f"{name}_share": share}
        spread = share.reshape(-1, *[1] * (1 - axis)).astype(np.float64)
        last = np.minimum(at + 1, before - 1)
        wanted = wanted.take(at, 2 + axis) * (1 - spread) + wanted.take(last, 2 + axis) * spread
    arguments = dict(**source, **target, batch=shape[0], size=[*shape[2:], *size], **axes)
    return Case("bilinear", arguments, arena), wanted


def recurrent(
    seed: int = 0,
    kind: str = "gru",
    hidden: int = 19,
    directions: int = 1,
    time: int = 3,
    batch: int = 2,
    width: int = 16,
    samples: int = 2,
    parts: int = 2,
    density: float = 0.3,
    state: str = "given",
    external: bool = False,
) -> tuple[Case, np.ndarray, dict[str, np.ndarray]]:
    """A layer of recurrent cells, its weights [directions * gates * hidden, hidden], and where its values lie.

    The initial state is "given" (in the arena, or outside), "constant" or "zero". Outputs lie in the arena or outside.
    """
    rng = np.random.default_rng(seed)
    cells = Cells(kind, hidden, directions)
    matrix = f32((directions * cells.gates * hidden, hidden), rng) * (rng.random((1, hidden)) < density**0.5)
    matrix = (matrix * (rng.random(matrix.shape) < density**0.5) / (density * hidden) ** 0.5).astype(np.float32)
    fields, arrays = pack(matrix, f32(len(matrix), rng), cells, width, parts, density == 1)
    sizes = {
        "work": (batch * (cells.gated + 3 * cells.units),),
        "x": (time, batch, cells.gated),
        "y": (time, batch, directions * hidden),
        **dict.fromkeys(("h0", "c0", "hn", "cn"), (directions, batch, hidden)),
    }
    base, floats, outside = {}, 0, 0
    for name, size in sizes.items():
        if external and name in ("y", "h0", "hn", "c0", "cn"):
            base[name], outside = outside, outside + int(np.prod(size))
        else:
            base[name], floats = floats, floats + int(np.prod(size))
    arena, buffer = f32(floats, rng), f32(max(outside, 1), rng)
    arena[base["work"] :][: batch * cells.gated] = np.tile(arrays["rest"], batch)  # settled once, then kept
    values = {
        name: (buffer if external and name in ("y", "h0", "hn", "c0", "cn") else arena)[base[name] :][
            : int(np.prod(size))
        ].reshape(size)
        for name, size in sizes.items()
    }
    places = {
        name: {
            "buffer": 0 if external and name != "x" else -1,
            "base": base[name],
            "step": int(np.prod(sizes[name][1:])),
            "sample": sizes[name][2],
        }
        for name in ("x", "y", "h0", "hn", *(("c0", "cn") if kind == "lstm" else ()))
    }
    if state != "given":
        places = {name: place for name, place in places.items() if name not in ("h0", "c0")}
        arrays |= {f"{n}_start": values[f"{n}0"].reshape(-1).copy() for n in "hc" if state == "constant"}
    arguments = dict(
        cell=kind, steps=time, batch=batch, hidden=hidden, directions=directions, samples=samples, work=base["work"],
        **fields, **arrays, **places,
    )  # fmt: skip
    return Case("recurrent", arguments, arena, [buffer] if external else []), matrix, values


def cut(case: Case, count: int, rows: int, seed: int = 0) -> Case:
    """A taps or dense step whose image is cut into slabs: its arena as often, each with other numbers."""
    arena = f32(count * len(case.arena), np.random.default_rng(seed))
    return Case(case.family, {**case.arguments, "slabs": [count, len(case.arena), rows]}, arena)


@dataclass
class Slabs:
    """Planes [C, H, W] cut into slabs: where they lie, and how to write and read them."""

    shape: tuple[int, int, int]
    count: int
    """Slabs; 0: the planes are whole."""
    rows: int = 0
    above: int = 0
    below: int = 0
    begin: int = 0
    """Where the first plane's halo begins, in each slab."""
    floats: int = 0
    """Of a slab, once all that lies in it is known."""

    @property
    def pitch(self) -> int:
        return self.shape[2] + 2

    @property
    def plane(self) -> int:
        return (self.above + (self.rows if self.count else self.shape[1]) + self.below) * self.pitch + 1

    @property
    def end(self) -> int:
        return self.begin + self.shape[0] * self.plane

    def view(self) -> dict[str, Any]:
        """The fields of a view."""
        offsets = i32([self.begin + self.above * self.pitch + c * self.plane for c in range(self.shape[0])])
        found = {"buffer": -1, "pitch": self.pitch, "stride": 0, "planes": offsets}
        return found | ({"slabs": [self.count, self.floats, self.rows]} if self.count else {})

    def stretch(self, slab: int, halo: bool) -> range:
        """An image's rows that a slab holds."""
        if not self.count:
            return range(self.shape[1])
        first, last = slab * self.rows, (slab + 1) * self.rows
        rows = range(self.shape[1])
        return rows[max(0, first - self.above) : last + self.below] if halo else rows[first:last]

    def pixels(self, arena: np.ndarray, halo: bool = False) -> Any:
        """(rows, pixels [C, rows, W] as a part of the arena) of every slab."""
        _, _, w = self.shape
        for slab in range(max(1, self.count)):
            rows = self.stretch(slab, halo)
            at = (
                slab * self.floats + self.begin + self.above * self.pitch + (rows.start - slab * self.rows) * self.pitch
            )
            shape, strides = (self.shape[0], len(rows), w), (4 * self.plane, 4 * self.pitch, 4)
            yield rows, np.lib.stride_tricks.as_strided(arena[at:], shape, strides)


def slab_copy(
    seed: int = 0,
    shape: tuple[int, int, int] = (3, 7, 5),
    step: tuple[int, int] = (1, 1),
    first: int = 0,
    count: tuple[int, int] = (2, 2),
    halo: tuple[int, int] = (1, 2),
) -> tuple[Case, Slabs, np.ndarray]:
    """A copy of every `step`-th pixel from row `first` on between planes in `count` slabs (0: whole), its target and
    what must arrive."""
    rng = np.random.default_rng(seed)
    x = f32(shape, rng)
    wanted = x[:, first :: step[0], :: step[1]]
    rows = [-(-size // max(1, n)) for size, n in zip((shape[1], wanted.shape[1]), count, strict=True)]
    source = Slabs(shape, count[0], rows[0])
    target = Slabs(wanted.shape, count[1], rows[1], *(halo if count[1] else (0, 0)), begin=source.end)
    source.floats = target.floats = target.end
    arena = f32(max(1, *count) * target.end, rng)
    for stretch, pixels in source.pixels(arena):
        pixels[...] = x[:, stretch]
    channels = shape[0]
    arguments = {
        "x": source.view(),
        "y": target.view(),
        "batch": 1,
        "step": list(step),
        "from": i32([first] * channels),
        "rows": i32([wanted.shape[1]] * channels),
        "columns": i32([wanted.shape[2]] * channels),
        **({"halo": list(halo)} if count[1] else {}),
    }
    return Case("copy", arguments, arena), target, wanted


def slab_pool(
    seed: int = 0,
    is_max: bool = True,
    shape: tuple[int, int, int] = (2, 9, 6),
    kernel: int = 3,
    stride: int = 2,
    padding: int = 1,
    slabs: int = 2,
    whole: bool = False,
) -> tuple[Case, Slabs, np.ndarray]:
    """A pooling from planes in slabs (or whole ones) into slabs, its target and its input."""
    rng = np.random.default_rng(seed)
    c, h, w = shape
    out = tuple((size + 2 * padding - kernel) // stride + 1 for size in (h, w))
    reach = kernel + stride * h  # halos as large as an image: any window is there
    source = Slabs(shape, 0 if whole else slabs, -(-h // slabs), *((0, 0) if whole else (reach, reach)))
    target = Slabs((c, *out), slabs, -(-out[0] // slabs), begin=source.end)
    source.floats = target.floats = target.end
    x, arena = f32(shape, rng), f32(slabs * target.end, rng)
    for stretch, pixels in source.pixels(arena, halo=True):
        pixels[...] = x[:, stretch]
    scales = [np.zeros(0, np.float32)] * 2 if is_max else [f32(size, rng) for size in out]
    arguments = {
        "max": is_max,
        "x": source.view(),
        "y": target.view(),
        "batch": 1,
        "size": [h, w, *out],
        "kernel": [kernel, kernel],
        "stride": [stride, stride],
        "padding": [padding, padding],
        "dilation": [1, 1],
        "scale_y": scales[0],
        "scale_x": scales[1],
    }
    return Case("pool", arguments, arena), target, x


def slab_mean(seed: int = 0, shape: tuple[int, int, int] = (5, 7, 3), slabs: int = 2) -> tuple[Case, np.ndarray]:
    """A mean of planes in slabs whose padding is zero, and what must come out, [C]."""
    rng = np.random.default_rng(seed)
    x = f32(shape, rng)
    source = Slabs(shape, slabs, -(-shape[1] // slabs))
    source.floats = source.end
    arena = np.zeros(slabs * source.end + shape[0], np.float32)
    for stretch, pixels in source.pixels(arena):
        pixels[...] = x[:, stretch]
    fields = {"batch": 1, "y": slabs * source.end, "y_stride": 0, "h": shape[1], "w": shape[2]}
    return Case("mean", {"x": source.view(), **fields, "scale": 1 / (shape[1] * shape[2])}, arena), x.mean(axis=(1, 2))


def clear(
    seed: int = 0, planes: int = 5, plane: int = 40, stretches: tuple[tuple[int, int], ...] = ((0, 3), (9, 1), (33, 7))
) -> Case:
    """Some of a row of planes of `plane` floats, in which (begin, length) of `stretches` become zero."""
    rng = np.random.default_rng(seed)
    first, length = i32(*(b for b, _ in stretches)), i32(*(n for _, n in stretches))
    arguments = {"planes": i32(7 + plane * rng.permutation(2 * planes)[:planes]), "first": first, "length": length}
    return Case("clear", arguments, f32(7 + 2 * planes * plane, rng))


def every_case() -> dict[str, Case]:
    """One valid step of each family."""
    return {
        "taps": taps(),
        "dense": dense(),
        "winograd": winograd()[0],
        "winograd_2": winograd(tile=2, width=32, outputs=70, row_chunks=3)[0],
        "rows": rows(),
        "rows_narrow": rows(width=4, counts=(7, 0, 35, 16, 1)),
        "max_pool": pool(),
        "avg_pool": pool(is_max=False),
        "copy": copy()[0],
        "copy_out": copy(external=True)[0],
        "mean": mean()[0],
        "attention": attention(flags=True),
        "attention_bias": attention(bias_heads=2),
        "layer_norm": layer_norm(),
        "embedding": embedding(),
        "constant": constant(),
        "constant_image": constant(rows=3),
        "word_mean": word_mean(),
        "unit": unit(),
        "interleave": interleave()[0],
        "bilinear": bilinear()[0],
        "clear": clear(),
        "pointwise": pointwise(),
        "scale": scale(),
        "binary": binary(),
        "binary_each": binary(each=True).changed(act=["silu"]),
        "taps_pieces": taps(pieces=3),
        "taps_slabs": cut(taps(grid=(1, 40, 7, 5, 6)), 3, 2),
        "dense_slabs": cut(dense(grid=(1, 40, 7, 5, 6)), 2, 3),
        "winograd_slabs": cut(winograd(grid=(1, 1, 8, 5, 6))[0], 2, 3),
        "copy_slabs": slab_copy()[0],
        "copy_halo": slab_copy()[0].changed(only_halo=True),
        "pool_slabs": slab_pool()[0],
        "mean_slabs": slab_mean()[0],
        "taps_act": taps().changed(act=["silu"]),
        "dense_act": dense().changed(act=["silu"]),
        "winograd_act": winograd()[0].changed(act=["silu"]),
        "rows_narrow_act": rows(width=1, counts=(7, 0, 35, 16, 1)).changed(act=["silu"]),
        "rows_act": rows().changed(act=["elu", 1.0, 1.0, 1.0]),
        "recurrent": recurrent(parts=3)[0],
        "recurrent_lstm": recurrent(kind="lstm", directions=2, parts=5, hidden=40)[0],
        "recurrent_outside": recurrent(kind="tanh", directions=2, external=True, batch=1)[0],
    }
