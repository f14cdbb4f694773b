"""Steps of nested sparsity levels, and the plain step that each of their levels is."""

import numpy as np

from .case import Case, f32, i32


def leveled(case: Case, levels: int = 3, scale: bool = True, seed: int = 0) -> Case:
    """A case of `taps` or `rows` that holds `levels` networks, each a random beginning of every block's taps."""
    rng = np.random.default_rng(seed)
    start, rows = case.arguments["start"], len(case.arguments["bias"])
    left, ends = np.diff(start), []
    for _ in range(levels - 1):
        left = rng.integers(0, left + 1)
        ends.append(start[:-1] + left)
    arrays = {"level_end": i32(*ends), "level_bias": f32((levels - 1) * rows, rng)}
    if scale:
        arrays["level_scale"] = f32((levels - 1) * rows, rng)
    return case.changed(levels=levels, **arrays)


def of_level(case: Case, level: int) -> Case:
    """What a leveled case is at a level above 0: a case with the taps, bias and factors of that level alone."""
    given = dict(case.arguments)
    start, bias = given["start"], given["bias"]
    levels, blocks, rows = given.pop("levels"), len(start) - 1, len(bias)
    end, bias, scale = (given.pop(f"level_{name}", None) for name in ("end", "bias", "scale"))
    end = end.reshape(levels - 1, blocks)[level - 1]
    kept = np.concatenate([np.arange(a, b) for a, b in zip(start[:-1], end, strict=True)]).astype(int)
    value = given["value"].reshape(start[-1], rows // blocks)
    if scale is not None:
        factors = scale.reshape(levels - 1, blocks, rows // blocks)[level - 1]
        value = value * np.repeat(factors, np.diff(start), axis=0)
    plain = {
        "start": i32(0, *np.cumsum(end - start[:-1])),
        "index": given["index"][kept],
        "value": value[kept].reshape(-1),
        "bias": bias.reshape(levels - 1, rows)[level - 1],
    }
    return Case(case.family, {**given, **plain}, case.arena, case.buffers)
