"""Random depthwise convolutions, of whole images and of images in slabs, and where their images lie."""

import math
from typing import Any

import numpy as np

from .case import Case, f32
from .images import place, view
from .slabs import Slabs, slab_pair


def depthwise(
    seed: int = 0,
    shape: tuple[int, int, int, int] = (2, 3, 9, 8),
    out: tuple[int, int] = (5, 4),
    kernel: tuple[int, int] = (3, 3),
    stride: int = 2,
    before: tuple[int, int] = (1, 0),
    each: int = 1,
    external: tuple[bool, bool] = (False, False),
    clamp: tuple[float, float] = (-math.inf, math.inf),
    act: list[Any] | None = None,
    x: np.ndarray | None = None,
) -> Case:
    """A convolution of every plane of `x` with `each` kernels, from the arena or a buffer outside into another or the
    same. As many outputs as `out` says are wanted, whatever zeros that takes behind the image."""
    rng = np.random.default_rng(seed)
    n, c, *size = shape
    x = f32(shape, rng) if x is None else x
    wanted = (n, c * each, *out)
    base = 0 if any(external) else view("x", -1, shape, gap=2)[1]
    source, end = view("x", 0 if external[0] else -1, shape, gap=2)
    target, total = view("y", sum(external) - 1 if external[1] else -1, wanted, gap=3, base=base)
    buffers = [f32(floats, rng) for floats, outside in ((end, external[0]), (total, external[1])) if outside]
    inside = max([1, *(reach for reach, outside in ((end, external[0]), (total, external[1])) if not outside)])
    source["x"]["planes"] = source["x"]["planes"].repeat(each)
    case = Case(
        "depthwise",
        {**source, **target, "batch": n, **_sums(rng, c * each, (*size, *out), kernel, stride, before, clamp, act)},
        f32(inside, rng),
        buffers,
    )
    place(x.repeat(each, axis=1), where(case, "x"), case.arguments, "x")
    return case


def where(case: Case, which: str, values: np.ndarray | None = None) -> np.ndarray:
    """The arena or the buffer in which a view lies; `values` are all of them, one after the other."""
    at = case.arguments[which]["buffer"] + 1
    parts = [case.arena, *case.buffers]
    if values is None:
        return parts[at]
    return np.split(values, np.cumsum([part.size for part in parts])[:-1])[at]


def slab_depthwise(
    seed: int = 0,
    shape: tuple[int, int, int] = (3, 9, 8),
    out: tuple[int, int] = (5, 4),
    kernel: tuple[int, int] = (3, 3),
    stride: int = 2,
    before: tuple[int, int] = (1, 0),
    count: tuple[int, int] = (2, 2),
    act: list[Any] | None = None,
) -> tuple[Case, Slabs, np.ndarray]:
    """The same between planes in `count` slabs without halos (0: whole), its target and its input."""
    rng = np.random.default_rng(seed)
    c, *size = shape
    x = f32(shape, rng)
    source, target = slab_pair(shape, (c, *out), count)
    arena = f32(max(1, *count) * target.end, rng)
    source.fill(arena, x)
    sums = _sums(rng, c, (*size, *out), kernel, stride, before, (-math.inf, math.inf), act)
    return Case("depthwise", {"x": source.view(), "y": target.view(), "batch": 1, **sums}, arena), target, x


def _sums(rng, planes, size, kernel, stride, before, clamp, act) -> dict[str, Any]:
    return {
        "size": list(size),
        "kernel": list(kernel),
        "stride": stride,
        "before": list(before),
        "weight": f32(planes * kernel[0] * kernel[1], rng) / np.float32(math.sqrt(kernel[0] * kernel[1])),
        "bias": f32(planes, rng),
        "lo": clamp[0],
        "hi": clamp[1],
        **({"act": act} if act else {}),
    }
