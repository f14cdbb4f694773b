"""Random steps on quads, and what they must give, bit by bit, by NumPy."""

import itertools

import numpy as np

from .case import Case, f32, i32, inside, stretches

ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38, -3e38], np.float32)


TILE = 16
"""Rows of the largest blocks, whose weights lie in tiles of as many taps."""


def tiled(value: np.ndarray) -> np.ndarray:
    """Weights [taps][rows][4] of blocks of 16 rows in tiles [taps / 16][rows][16 taps][4], or the other way round."""
    return np.ascontiguousarray(value.reshape(-1, TILE, TILE, 4).swapaxes(1, 2)).reshape(-1)


def numbers(shape: int | tuple[int, ...], rng: np.random.Generator, inverse: float = 1.0) -> np.ndarray:
    """Floats around the bounds of a byte once multiplied by `inverse`, ties, NaN and infinity among them."""
    found = f32(shape, rng) * np.float32(150 / inverse)
    ties = (rng.integers(-300, 300, shape) + 0.5).astype(np.float32) / np.float32(inverse)
    found = np.where(rng.random(shape) < 0.3, ties, found)
    return np.where(rng.random(shape) < 0.1, rng.choice(ODD, shape), found).astype(np.float32)


def rounded(values: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """Whole numbers between bounds, ties to even; NaN counts as `lo`."""
    return np.where(np.isnan(values), lo, np.clip(np.rint(values), lo, hi)).astype(np.int32)


def packed(channels: np.ndarray) -> np.ndarray:
    """[C, n] integers as planes of words [ceil(C / 4), n], the first channel in the lowest byte."""
    count, n = channels.shape
    planes = np.zeros((-(-count // 4) * 4, n), np.uint8)
    planes[:count] = channels.astype(np.uint8)
    return np.ascontiguousarray(planes.reshape(-1, 4, n).swapaxes(1, 2)).view(np.int32)[..., 0]


def unpacked(words: np.ndarray, signed: bool) -> np.ndarray:
    """Planes of words [quads, n] as channels [4 quads, n]."""
    split = np.ascontiguousarray(words)[..., None].view(np.int8 if signed else np.uint8)
    return split.swapaxes(-1, -2).reshape(-1, words.shape[-1]).astype(np.int32)


def quantize(
    seed: int = 0,
    channels: int = 7,
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    bounds: tuple[int, int] = (0, 255),
    inverse: float = 1.0,
) -> Case:
    """Planes of floats to planes of quads, both in any order."""
    rng = np.random.default_rng(seed)
    arguments, floats = _planes(rng, channels, grid)
    arguments |= {"inverse": inverse, "lo": bounds[0], "hi": bounds[1]}
    return Case("quantize", arguments, numbers(floats, rng, inverse))


def quantize_tokens(
    seed: int = 0,
    channels: int = 7,
    grid: tuple[int, int, int, int, int] = (2, 30, 30, 1, 21),
    most: int = 127,
    results: tuple[str, ...] = ("quads", "y"),
) -> Case:
    """Planes of floats to planes of quads and of floats, and one of scales. Some tokens are tiny, some are zero."""
    rng = np.random.default_rng(seed)
    reach, quads = len(inside(grid)), -(-channels // 4)
    places = 5 + reach * rng.permutation(2 * channels + quads + 1)
    outputs = {"quads": i32(places[channels:][:quads]), "y": i32(places[channels + quads :][:channels])}
    arguments = {
        "x": i32(places[:channels]), **{name: outputs[name] for name in results}, "token": int(places[-1]),
        "grid": list(grid), "lo": -most, "hi": most,
    }  # fmt: skip
    arena = numbers(5 + len(places) * reach, rng)
    size = rng.choice(np.array([1.0, 1e-33, 0.0, 1e4], np.float32), reach)
    with np.errstate(over="ignore", invalid="ignore"):
        put(arena, arguments["x"], taken(arena, arguments["x"], reach) * size)
    return Case("quantize_tokens", arguments, arena)


def dequantize(
    seed: int = 0,
    channels: int = 7,
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    signed: bool = True,
    scale: float = 0.3,
) -> Case:
    """Planes of quads to planes of floats, both in any order."""
    rng = np.random.default_rng(seed)
    arguments, floats = _planes(rng, channels, grid)
    arguments |= {"x": arguments["y"], "y": arguments["x"], "signed": signed, "scale": scale}
    return Case("dequantize", arguments, rng.integers(-(2**31), 2**31, floats).astype(np.int32).view(np.float32))


def _planes(rng, channels, grid):
    """Places of planes of floats x and of planes of quads y, and the floats of an arena that holds them."""
    reach, quads = len(inside(grid)), -(-channels // 4)
    places = 5 + reach * rng.permutation(channels + quads)
    fields = {"x": i32(places[:channels]), "y": i32(places[channels:]), "grid": list(grid)}
    return fields, 5 + (channels + quads) * reach


def quad_taps(
    seed: int = 0,
    mb: int = 4,
    vectors: int = 3,
    counts: tuple[int, ...] = (5, 0, 9),
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    signed: bool = True,
    quads_out: bool = True,
    residual: str = "none",
    bounds: tuple[float, float] = (0, 255),
    row_chunks: int = 1,
    tile_chunks: int = 1,
    token: bool = False,
) -> Case:
    """Blocks of `mb` rows with `counts` taps each. Half of all scales and biases are such that results lie on ties."""
    rng = np.random.default_rng(seed)
    reach, rows, room = len(inside(grid)), mb * len(counts), 400
    planes = room + reach + reach * rng.permutation(rows + rows)  # a plane of floats or of quads each
    inputs = rng.integers(0, room + 1, 30)
    scale = np.where(rng.random(rows) < 0.5, 2.0 ** -rng.integers(6, 12, rows), rng.random(rows) / 100)
    bias = np.where(rng.random(rows) < 0.5, rng.integers(-90, 90, rows) / 2, f32(rows, rng))
    arguments = {
        "mb": mb,
        "vectors": vectors,
        "row_chunks": row_chunks,
        "tile_chunks": tile_chunks,
        "start": i32(0, *np.cumsum(counts)),
        "index": i32(rng.integers(0, len(inputs), sum(counts))),
        "planes": [stretches(i32(inputs))],
        "shifts": [[0, 0]],
        "signed": signed,
        "quads_out": quads_out,
        "value": rng.integers(-128, 128, sum(counts) * mb * 4).astype(np.int8),
        "scale": scale.astype(np.float32),
        "bias": bias.astype(np.float32),
        "out": i32(planes[: rows // 4 if quads_out else rows]),
        "residual": i32(planes[rows:][: {"none": 0, "float": rows}.get(residual, rows // 4)]),
        "residual_kind": residual,
        "residual_scale": 0.75,
        "grid": list(grid),
        "lo": bounds[0],
        "hi": bounds[1],
    }
    floats = room + reach * (1 + 2 * rows)
    if token:
        arguments["token"] = floats
        floats += reach
    arena = rng.integers(-(2**31), 2**31, floats).astype(np.int32).view(np.float32)
    if residual == "float":
        arena[room + reach :] = f32(floats - room - reach, rng) * 50
    if token:
        scales = rng.choice(np.array([1.0, 0.5, 2.0**20]), reach) * rng.choice(np.array([1.0, 0.77]), reach)
        arena[-reach:] = scales
    return Case("quad_taps", arguments, arena)


def words(case: Case, values: np.ndarray | None = None) -> np.ndarray:
    """The arena, or these values, as words: a comparison of floats would let NaN and zeros of other signs pass."""
    return (case.arena if values is None else values).view(np.int32)


def quantized(case: Case) -> np.ndarray:
    """The words of the arena after a case of `quantize`."""
    a, found = case.arguments, words(case).copy()
    pixels = inside(a["grid"])
    with np.errstate(over="ignore", invalid="ignore"):
        x = taken(case.arena, a["x"], len(pixels)) * np.float32(a["inverse"])
    put(found, a["y"], packed(rounded(x, a["lo"], a["hi"]) * pixels))
    return found


def token_scales(x: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """What tokens [channels, tokens] are multiplied by before they are rounded, and by to come back."""
    largest = np.abs(x).max(axis=0)
    scale = np.where(
        np.isfinite(largest), np.maximum(largest, np.float32(1e-30)) / np.float32(most), np.float32(np.nan)
    )
    return np.float32(1) / scale, scale


def tokens_quantized(case: Case) -> np.ndarray:
    """The words of the arena after a case of `quantize_tokens`."""
    a, found = case.arguments, words(case).copy()
    pixels = inside(a["grid"])
    x = taken(case.arena, a["x"], len(pixels))
    inverse, scale = token_scales(x, a["hi"])
    with np.errstate(over="ignore", invalid="ignore"):
        k = rounded(x * inverse, a["lo"], a["hi"]) * pixels
        y = np.where(pixels, k.astype(np.float32) * scale, np.float32(0))
    put(found, np.array([a["token"]]), np.where(pixels, scale, np.float32(0))[None].view(np.int32))
    if "quads" in a:
        put(found, a["quads"], packed(k))
    if "y" in a:
        put(found, a["y"], y.view(np.int32))
    return found


def dequantized(case: Case) -> np.ndarray:
    """The words of the arena after a case of `dequantize`."""
    a, found = case.arguments, words(case).copy()
    pixels = inside(a["grid"])
    x = unpacked(taken(words(case), a["x"], len(pixels)), a["signed"]).astype(np.float32) * np.float32(a["scale"])
    put(found, a["y"], np.where(pixels, x, np.float32(0)).astype(np.float32).view(np.int32)[: len(a["y"])])
    return found


def added(case: Case) -> np.ndarray:
    """The words of the arena after a case of `quad_taps` with lists and without activation."""
    a, found = case.arguments, words(case).copy()
    pixels, mb, rows = inside(a["grid"]), a["mb"], len(a["bias"])
    offsets = np.array([plane for plane, _, _ in a["planes"][0]])[a["index"]]
    x = unpacked(taken(found, offsets, len(pixels)), a["signed"]).reshape(len(offsets), 4, len(pixels))
    value = a["value"].reshape(-1, mb, 4) if mb < TILE else tiled(a["value"])  # its own inverse
    value = value.reshape(-1, mb, 4).astype(np.int64)
    sums = [
        np.einsum("kmc,kcq->mq", value[begin:end], x[begin:end])
        for begin, end in itertools.pairwise(a["start"].tolist())
    ]
    sums = np.concatenate(sums).astype(np.int32).astype(np.float32)
    if "token" in a:
        sums = sums * taken(case.arena, np.array([a["token"]]), len(pixels))
    y = fma(sums, a["scale"][:, None], a["bias"][:, None])
    kind, scale = a["residual_kind"], np.float32(a["residual_scale"])
    if kind == "float":
        y = fma(taken(case.arena, a["residual"], len(pixels)), scale, y)
    elif kind != "none":
        y = fma(unpacked(taken(words(case), a["residual"], len(pixels)), kind == "s8").astype(np.float32), scale, y)
    if a["quads_out"]:
        k = rounded(y, a["lo"], a["hi"])
        put(found, a["out"], packed(k * pixels))
    else:
        y = np.where(pixels, np.clip(y, np.float32(a["lo"]), np.float32(a["hi"])), 0).astype(np.float32)
        put(found, a["out"], y.view(np.int32)[:rows])
    return found


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c of float32 numbers, rounded once.

    The product is exact in float64. The sum is rounded to odd there: where it is not exact, to the one of its two
    neighbours whose last bit is 1. A number of 53 bits rounded like this goes to the same 24 bits as the exact one.
    """
    product, c = a.astype(np.float64) * b, c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)  # exact: Knuth's two-sum
    inexact = (error != 0) & np.isfinite(total) & (total.view(np.int64) & 1 == 0)
    return np.where(inexact, np.nextafter(total, np.copysign(np.inf, error)), total).astype(np.float32)


def taken(arena: np.ndarray, planes: np.ndarray, reach: int) -> np.ndarray:
    """The planes that begin at these positions, [planes, reach]."""
    return arena[planes[:, None] + np.arange(reach)]


def put(found: np.ndarray, planes: np.ndarray, values: np.ndarray) -> None:
    """Write planes [planes, reach] there."""
    found[planes[:, None] + np.arange(values.shape[1])] = values
