"""Random steps on planes that are cut into slabs, and where their rows lie."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .case import Case, f32, i32


def cut(case: Case, count: int, rows: int, seed: int = 0) -> Case:
    """A taps or dense step whose image is cut into slabs: its arena as often, each with other numbers."""
    arena = f32(count * len(case.arena), np.random.default_rng(seed))
    return Case(case.family, {**case.arguments, "slabs": [count, len(case.arena), rows]}, arena)


def each_slab(case: Case, computed: Callable[[Case], np.ndarray]) -> np.ndarray:
    """What is `computed` for the slabs of a step that was cut, each as a step of its own."""
    count, floats, rows = case.arguments["slabs"]
    batch, stride, pitch, h, w = case.arguments["grid"]
    parts = []
    for slab, arena in enumerate(case.arena.reshape(count, floats)):
        whole = {**case.arguments, "grid": [batch, stride, pitch, min(rows, h - slab * rows), w]}
        del whole["slabs"]
        parts.append(computed(Case(case.family, whole, arena)))
    return np.concatenate(parts)


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

    def fill(self, arena: np.ndarray, planes: np.ndarray, halo: bool = False) -> None:
        """Write whole planes [C, H, W] into the slabs of the arena."""
        for rows, pixels in self.pixels(arena, halo):
            pixels[...] = planes[:, rows]


def slab_pair(
    shape: tuple[int, int, int],
    wanted: tuple[int, int, int],
    count: tuple[int, int],
    halo: tuple[int, int] = (0, 0),
) -> tuple[Slabs, Slabs]:
    """Planes that a step reads and, behind them, planes that it writes, in `count` slabs each (0: whole). `halo` is
    that of the slabs that it writes."""
    rows = [-(-h // max(1, slabs)) for h, slabs in zip((shape[1], wanted[1]), count, strict=True)]
    source = Slabs(shape, count[0], rows[0])
    target = Slabs(wanted, count[1], rows[1], *(halo if count[1] else (0, 0)), begin=source.end)
    source.floats = target.floats = target.end
    return source, target


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
    source, target = slab_pair(shape, wanted.shape, count, halo)
    arena = f32(max(1, *count) * target.end, rng)
    source.fill(arena, x)
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
    source.fill(arena, x, halo=True)
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
    source.fill(arena, x)
    fields = {"batch": 1, "y": slabs * source.end, "y_stride": 0, "h": shape[1], "w": shape[2]}
    return Case("mean", {"x": source.view(), **fields, "scale": 1 / (shape[1] * shape[2])}, arena), x.mean(axis=(1, 2))
