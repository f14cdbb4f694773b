"""`fuzz_steps.py COUNT`: valid steps with nasty arguments are refused, or run. Prints how many of each."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import native_steps as steps

from openwork.engine import _native

NASTY = (
    -(2**63),
    -(2**31),
    -1,
    0,
    1,
    2,
    3,
    7,
    8,
    15,
    16,
    17,
    64,
    255,
    2**15,
    2**24 - 1,
    2**30 - 1,
    2**31 - 1,
    2**31,
    2**40,
    2**62,
)


def nasty(value, rng):
    """Something of nearly the same type that is likely to be wrong."""
    if isinstance(value, np.ndarray):
        return _nasty_array(value.copy(), rng)
    if isinstance(value, list):
        return [nasty(v, rng) if rng.random() < 0.4 else v for v in value][: len(value) - (rng.random() < 0.1)]
    if isinstance(value, str):
        return value[:-1]
    if isinstance(value, bool):
        return not value
    if isinstance(value, dict):
        return {key: nasty(v, rng) if rng.random() < 0.4 else v for key, v in value.items()}
    if isinstance(value, str):
        return rng.choice(["silu", "leaky_relu", "clamp", "", "dance"]).item()
    if isinstance(value, float):
        return float(rng.choice([np.nan, np.inf, -np.inf, 0.0]))
    return int(rng.choice(np.array(NASTY, dtype=object))) if rng.random() < 0.7 else value + int(rng.integers(-3, 4))


def _nasty_array(array, rng):
    kind = rng.integers(5)
    if kind == 0:
        return array[: rng.integers(len(array) + 1)]
    if kind == 1:
        return np.concatenate([array, array])
    if kind == 2:
        return array.astype(rng.choice(["float64", "int64", "int8"]))
    if len(array) and array.dtype.kind != "f":
        limits = np.iinfo(array.dtype)
        at = rng.integers(len(array), size=rng.integers(1, 4))
        array[at] = [min(max(int(rng.choice(np.array(NASTY, dtype=object))), limits.min), limits.max) for _ in at]
    return array


def main(count: int) -> None:
    rng = np.random.default_rng(0)
    refused = ran = 0
    cases, isas = steps.every_case(), _native.isas()
    for turn in range(count):
        case = cases[list(cases)[turn % len(cases)]]
        names = rng.choice(list(case.arguments), size=rng.integers(1, 3), replace=False)
        changed = case.changed(**{name: nasty(case.arguments[name], rng) for name in names})
        try:
            changed.run(isas[turn // len(cases) % len(isas)], threads=1 + turn % 2)
            ran += 1
        except (ValueError, TypeError, MemoryError, IndexError):
            refused += 1
    print(refused, ran)


main(int(sys.argv[1]))
