"""Random steps that move, pool or resize images, and how the images lie in memory."""

from typing import Any

import numpy as np

from .case import Case, f32, i32


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


def clear(
    seed: int = 0, planes: int = 5, plane: int = 40, stretches: tuple[tuple[int, int], ...] = ((0, 3), (9, 1), (33, 7))
) -> Case:
    """Some of a row of planes of `plane` floats, in which (begin, length) of `stretches` become zero."""
    rng = np.random.default_rng(seed)
    first, length = i32(*(b for b, _ in stretches)), i32(*(n for _, n in stretches))
    arguments = {"planes": i32(7 + plane * rng.permutation(2 * planes)[:planes]), "first": first, "length": length}
    return Case("clear", arguments, f32(7 + 2 * planes * plane, rng))
