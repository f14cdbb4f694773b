"""Random layers of recurrent cells."""

import numpy as np

from openwork.compiler.recurrent import Cells, pack

from .case import Case, f32


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
