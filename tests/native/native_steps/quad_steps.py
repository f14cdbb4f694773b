"""Random steps on quads beside the convolution, and the words they must leave in the arena, by NumPy."""

import itertools
from typing import Any

import numpy as np

from .case import UNIT, Case, i32, inside
from .images import place, read, view
from .quads import fma, numbers, packed, rounded, token_scales, unpacked, words
from .slabs import Slabs, slab_pair

EXTREMES = np.array([-128, -127, -1, 0, 1, 127], np.int8)


def bytes_at_random(count: int, rng: np.random.Generator) -> np.ndarray:
    """Signed bytes, a third of them extreme ones."""
    found = rng.integers(-128, 128, count).astype(np.int8)
    return np.where(rng.random(count) < 0.3, rng.choice(EXTREMES, count), found)


def words_at_random(shape: Any, rng: np.random.Generator) -> np.ndarray:
    """Words of such bytes."""
    return bytes_at_random(4 * int(np.prod(shape)), rng).view(np.int32).reshape(shape)


def arena_at_random(count: int, rng: np.random.Generator) -> np.ndarray:
    """Such words as floats."""
    return words_at_random(count, rng).view(np.float32)


def scales_at_random(count: int, most: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Scales and biases that bring sums up to `most` to a byte's bounds and beyond; many results are ties."""
    exact = 2.0 ** -np.ceil(np.log2(most / 300) + rng.integers(-1, 3, count))
    scale = np.where(rng.random(count) < 0.5, exact, rng.standard_normal(count) * 200 / most)
    bias = np.where(rng.random(count) < 0.5, rng.integers(-90, 90, count) / 2, 40 * rng.standard_normal(count))
    return {"scale": scale.astype(np.float32), "bias": bias.astype(np.float32)}


def channels(stack: np.ndarray, signed: bool) -> np.ndarray:
    """Words [N, quads, H, W] as numbers [N, 4 quads, H, W]."""
    n, _, h, w = stack.shape
    return np.stack([unpacked(image.reshape(-1, h * w), signed) for image in stack]).reshape(n, -1, h, w)


def quads(stack: np.ndarray) -> np.ndarray:
    """Numbers [N, C, H, W] as words [N, ceil(C / 4), H, W]."""
    n, c, h, w = stack.shape
    return np.stack([packed(image.reshape(c, h * w)) for image in stack]).reshape(n, -1, h, w)


def read_words(shape: tuple[int, ...], case: Case, which: str) -> np.ndarray:
    """Words [N, quads, H, W] of the view `which` in the case's arena."""
    return read(shape, case.arena, case.arguments, which).view(np.int32)


def written(case: Case, stack: np.ndarray) -> np.ndarray:
    """The words of the arena with these of [N, quads, H, W] where view y lies."""
    found = case.arena.copy()
    place(np.ascontiguousarray(stack).astype(np.int32).view(np.float32), found, case.arguments, "y")
    return found.view(np.int32)


# ---- pooling ----


def quad_pool(
    seed: int = 0,
    shape: tuple[int, int, int, int] = (2, 3, 6, 7),
    out: tuple[int, int] = (3, 3),
    kernel: tuple[int, int] = (2, 3),
    stride: tuple[int, int] = (2, 2),
    padding: tuple[int, int] = (0, 1),
    dilation: tuple[int, int] = (1, 1),
    signed: bool = False,
) -> Case:
    """A max pooling of planes of quads."""
    rng = np.random.default_rng(seed)
    source, end = view("x", -1, shape, gap=2)
    target, total = view("y", -1, (*shape[:2], *out), gap=3, base=end)
    arguments = dict(
        **source, **target, batch=shape[0], size=[*shape[2:], *out], kernel=list(kernel), stride=list(stride),
        padding=list(padding), dilation=list(dilation), signed=signed,
    )  # fmt: skip
    return Case("quad_pool", arguments, arena_at_random(total, rng))


def pooled(case: Case) -> np.ndarray:
    """The arena after a case of `quad_pool`."""
    a = case.arguments
    x = channels(read_words((a["batch"], len(a["x"]["planes"]), *a["size"][:2]), case, "x"), a["signed"])
    return written(case, quads(largest(x, a)))


def largest(x: np.ndarray, a: dict[str, Any]) -> np.ndarray:
    """The largest numbers of the windows that `a` describes in x [N, C, H, W]."""
    h, w, *out = a["size"]
    found = np.full((*x.shape[:2], *out), -128 if a["signed"] else 0)
    for i, j in np.ndindex(*out):
        rows, columns = (
            [at for k in range(size) if 0 <= (at := o * step - before + k * far) < most]
            for o, size, step, before, far, most in zip(
                (i, j), a["kernel"], a["stride"], a["padding"], a["dilation"], (h, w), strict=True
            )
        )
        if rows and columns:
            found[:, :, i, j] = x[:, :, rows][:, :, :, columns].max(axis=(2, 3))
    return found


def slab_quad_pool(
    seed: int = 0, shape: tuple[int, int, int] = (2, 9, 6), kernel: int = 3, slabs: int = 2, signed: bool = True
) -> tuple[Case, Slabs, np.ndarray]:
    """One of stride 2 from planes in slabs with halos into slabs, its target and the words that must arrive there."""
    rng = np.random.default_rng(seed)
    c, h, w = shape
    out = tuple((size + 2 - kernel) // 2 + 1 for size in (h, w))
    reach = kernel + 2 * h  # halos as large as an image: any window is there
    source = Slabs(shape, slabs, -(-h // slabs), reach, reach)
    target = Slabs((c, *out), slabs, -(-out[0] // slabs), begin=source.end)
    source.floats = target.floats = target.end
    x, arena = words_at_random(shape, rng), arena_at_random(slabs * target.end, rng)
    source.fill(arena, x.view(np.float32), halo=True)
    arguments = {
        "x": source.view(), "y": target.view(), "batch": 1, "size": [h, w, *out], "kernel": [kernel, kernel],
        "stride": [2, 2], "padding": [1, 1], "dilation": [1, 1], "signed": signed,
    }  # fmt: skip
    wanted = quads(largest(channels(x[None], signed), arguments))[0]
    return Case("quad_pool", arguments, arena), target, wanted


def quad_mean(
    seed: int = 0,
    channels: int = 7,
    batch: int = 2,
    size: tuple[int, int] = (4, 3),
    signed: bool = False,
    slabs: int = 0,
) -> tuple[Case, np.ndarray]:
    """A mean of planes whose padding is zero, in slabs (0: whole), and the words [batch, channels] of its result."""
    rng = np.random.default_rng(seed)
    (h, w), planes = size, -(-channels // 4)
    x = words_at_random((batch, planes, h, w), rng)
    scale = np.float32(0.3 / (h * w))
    if slabs:
        source = Slabs((planes, h, w), slabs, -(-h // slabs))
        source.floats = source.end
        end, fields, arena = slabs * source.end, {"x": source.view()}, np.zeros(slabs * source.end, np.float32)
        source.fill(arena, x[0].view(np.float32))
    else:
        fields, end = view("x", -1, x.shape, gap=2)
        arena = np.zeros(end, np.float32)
        place(x.view(np.float32), arena, fields, "x")
    room = arena_at_random(batch * (channels + 2), rng)
    arguments = dict(
        **fields,
        batch=batch,
        channels=channels,
        y=end,
        y_stride=channels + 2,
        h=h,
        w=w,
        scale=float(scale),
        signed=signed,
    )
    sums = np.stack([unpacked(image.reshape(planes, -1), signed).sum(axis=1)[:channels] for image in x])
    return Case("quad_mean", arguments, np.concatenate([arena, room])), (sums.astype(np.float32) * scale).view(np.int32)


# ---- depthwise convolution ----


def quad_depthwise(
    seed: int = 0,
    shape: tuple[int, int, int, int] = (2, 3, 9, 8),
    out: tuple[int, int] = (5, 4),
    kernel: tuple[int, int] = (3, 3),
    stride: int = 2,
    before: tuple[int, int] = (1, 0),
    signed: bool = False,
    bounds: tuple[int, int] = (0, 255),
) -> Case:
    """A convolution of every channel of planes of quads, with whatever zeros behind the image `out` takes."""
    rng = np.random.default_rng(seed)
    source, end = view("x", -1, shape, gap=2)
    target, total = view("y", -1, (*shape[:2], *out), gap=3, base=end)
    sums = _depthwise(rng, shape[1], (*shape[2:], *out), kernel, stride, before, signed, bounds)
    return Case("quad_depthwise", {**source, **target, "batch": shape[0], **sums}, arena_at_random(total, rng))


def _depthwise(rng, planes, size, kernel, stride, before, signed, bounds) -> dict[str, Any]:
    taps = kernel[0] * kernel[1]
    return {
        "size": list(size),
        "kernel": list(kernel),
        "stride": stride,
        "before": list(before),
        "signed": signed,
        "weight": bytes_at_random(4 * planes * taps, rng),
        **scales_at_random(4 * planes, 128 * 128 * taps, rng),
        "lo": bounds[0],
        "hi": bounds[1],
    }


def convolved_depthwise(x: np.ndarray, a: dict[str, Any]) -> np.ndarray:
    """What becomes of words [N, quads, H, W] in a case with these arguments: words [N, quads, H', W']."""
    x, (kh, kw), stride, (top, left), (h, w) = (
        channels(x, a["signed"]),
        a["kernel"],
        a["stride"],
        a["before"],
        a["size"][2:],
    )
    n, c, rows, columns = x.shape
    padded = np.zeros((n, c, max(top + rows, h * stride + kh), max(left + columns, w * stride + kw)), np.int64)
    padded[:, :, top : top + rows, left : left + columns] = x
    weight = a["weight"].astype(np.int64).reshape(c, kh, kw)
    sums = np.zeros((n, c, h, w), np.int64)
    for i, j in np.ndindex(kh, kw):
        sums += weight[:, i, j, None, None] * padded[:, :, i : i + h * stride : stride, j : j + w * stride : stride]
    y = fma(sums.astype(np.float32), a["scale"][:, None, None], a["bias"][:, None, None])
    k = rounded(y, a["lo"], a["hi"])
    return quads(k)


def depthwise_words(case: Case) -> np.ndarray:
    """The arena after a case of `quad_depthwise` of whole images."""
    a = case.arguments
    x = read_words((a["batch"], len(a["x"]["planes"]), *a["size"][:2]), case, "x")
    return written(case, convolved_depthwise(x, a))


def slab_quad_depthwise(
    seed: int = 0,
    shape: tuple[int, int, int] = (3, 9, 8),
    out: tuple[int, int] = (5, 4),
    kernel: tuple[int, int] = (3, 3),
    stride: int = 2,
    before: tuple[int, int] = (1, 0),
    count: tuple[int, int] = (2, 2),
    signed: bool = True,
) -> tuple[Case, Slabs, np.ndarray]:
    """One between planes in `count` slabs without halos (0: whole), its target and the words that must arrive there."""
    rng = np.random.default_rng(seed)
    c, *size = shape
    x = words_at_random(shape, rng)
    source, target = slab_pair(shape, (c, *out), count)
    arena = arena_at_random(max(1, *count) * target.end, rng)
    source.fill(arena, x.view(np.float32))
    sums = _depthwise(rng, c, (*size, *out), kernel, stride, before, signed, (-127, 127))
    arguments = {"x": source.view(), "y": target.view(), "batch": 1, **sums}
    return Case("quad_depthwise", arguments, arena), target, convolved_depthwise(x[None], arguments)[0]


# ---- fully connected layers ----


def quad_rows(
    seed: int = 0,
    samples: int = 2,
    batch: int = 3,
    counts: tuple[int, ...] = (7, 0, 2),
    features: int = 39,
    row_chunks: int = 1,
    x_bounds: tuple[int, int] = (0, 255),
    inverse: float = 0.5,
    clamp: tuple[float, float] = (-np.inf, np.inf),
    dense: bool = False,
    by_token: bool = False,
    width: int = UNIT,
) -> Case:
    """Panels of `width` outputs with `counts` of the columns each, or all of them."""
    rng = np.random.default_rng(seed)
    columns, outputs = -(-features // 4), width * len(counts)
    if dense:
        counts = (columns,) * len(counts)
    x_stride, y_stride = features + 3, outputs + 5
    end = 7 + batch * x_stride
    arena = numbers(end + batch * y_stride, rng, inverse)
    lists = {"start": i32(0, *np.cumsum(counts)), "index": i32(rng.integers(0, columns, sum(counts)))}
    arguments = {
        "width": width,
        "batch": batch,
        "samples": samples,
        "row_chunks": row_chunks,
        "features": features,
        "x": 7,
        "x_stride": x_stride,
        "y": end,
        "y_stride": y_stride,
        **({"by_token": True} if by_token else {"inverse": inverse}),
        "x_lo": -x_bounds[1] if by_token else x_bounds[0],
        "x_hi": x_bounds[1],
        **({"dense": True, "columns": columns} if dense else lists),
        "value": bytes_at_random(sum(counts) * width * 4, rng),
        **scales_at_random(outputs, 128 * 128 * features, rng),
        "lo": clamp[0],
        "hi": clamp[1],
    }
    return Case("quad_rows", arguments, arena)


def rows_words(case: Case) -> np.ndarray:
    """The arena after a case of `quad_rows`."""
    a, found = case.arguments, case.arena.copy()
    columns, panels, width = -(-a["features"] // 4), len(a["bias"]) // a["width"], a["width"]
    start = a["start"] if "start" in a else np.arange(panels + 1) * columns
    index = a["index"] if "index" in a else np.tile(np.arange(columns), panels)
    value = a["value"].reshape(-1, width, 4).astype(np.int64)
    for n in range(a["batch"]):
        with np.errstate(over="ignore", invalid="ignore"):
            x = case.arena[a["x"] + n * a["x_stride"] :][: a["features"]]
            inverse, token = token_scales(x, a["x_hi"]) if "by_token" in a else (np.float32(a["inverse"]), 1)
            x = x * inverse
        filled = np.zeros(4 * columns, np.int64)
        filled[: len(x)] = rounded(x, a["x_lo"], a["x_hi"])
        taken = filled.reshape(-1, 4)[index]
        sums = [np.einsum("koc,kc->o", value[begin:end], taken[begin:end]) for begin, end in itertools.pairwise(start)]
        with np.errstate(over="ignore", invalid="ignore"):
            totals = np.concatenate(sums).astype(np.int32).astype(np.float32) * token
            y = fma(totals, a["scale"], a["bias"])
        found[a["y"] + n * a["y_stride"] :][: len(y)] = np.clip(y, np.float32(a["lo"]), np.float32(a["hi"]))
    return found.view(np.int32)


# ---- one or two values ----


def quad_sum(
    seed: int = 0,
    grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5),
    planes: int = 3,
    signed: tuple[bool, bool] = (False, True),
    scale: tuple[float, float] = (0.5, 0.7),
    bounds: tuple[int, int] = (0, 255),
) -> Case:
    """The sum of two stacks of planes in any order."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    places = 5 + reach * rng.permutation(3 * planes)
    arguments = {
        **{name: i32(places[i * planes :][:planes]) for i, name in enumerate("aby")},
        **{f"signed_{name}": signed[i] for i, name in enumerate("ab")},
        **{f"scale_{name}": scale[i] for i, name in enumerate("ab")},
        "lo": bounds[0],
        "hi": bounds[1],
        "grid": list(grid),
    }
    return Case("quad_sum", arguments, arena_at_random(5 + 3 * planes * reach, rng))


def quad_table(
    seed: int = 0, grid: tuple[int, int, int, int, int] = (2, 30, 7, 4, 5), planes: int = 3, same: bool = False
) -> Case:
    """A table's bytes for those of planes in any order, in their place or another."""
    rng = np.random.default_rng(seed)
    reach = len(inside(grid))
    places = 5 + reach * rng.permutation(2 * planes)
    arguments = {
        "x": i32(places[:planes]),
        "y": i32(places[:planes] if same else places[planes:]),
        "table": rng.integers(0, 256, 256).astype(np.uint8),
        "grid": list(grid),
    }
    return Case("quad_table", arguments, arena_at_random(5 + 2 * planes * reach, rng))


def pointwise_words(case: Case) -> np.ndarray:
    """The arena after a case of `quad_sum` or `quad_table`."""
    a, found = case.arguments, words(case).copy()
    pixels = inside(a["grid"])

    def taken(name, signed):
        return unpacked(words(case)[a[name][:, None] + np.arange(len(pixels))], signed)

    if case.family == "quad_table":
        k = a["table"][taken("x", False)]
    else:
        first = taken("a", a["signed_a"]).astype(np.float32) * np.float32(a["scale_a"])
        k = rounded(
            fma(taken("b", a["signed_b"]).astype(np.float32), np.float32(a["scale_b"]), first), a["lo"], a["hi"]
        )
    found[a["y"][:, None] + np.arange(len(pixels))] = packed(np.where(pixels, k, 0))
    return found
