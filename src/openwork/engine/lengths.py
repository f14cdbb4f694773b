"""Shorter sequences than the compiled ones: zeros are appended to the inputs, and outputs cut back.

The compiler has checked that the model ignores those zeros, which attention does where its mask is zero.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import EngineError
from ..formats.program import Array, Lengths


def padded(lengths: Lengths, arrays: Sequence[Array]) -> tuple[list[Array], int]:
    """The inputs at the compiled length, and how long they were; `EngineError` if they differ in that."""
    found = {arrays[i].shape[1] for i in lengths.inputs}
    if len(found) > 1:
        raise EngineError(f"inputs have different lengths along axis 1: {[arrays[i].shape[1] for i in lengths.inputs]}")
    (length,) = found
    missing = lengths.longest - length
    filled = [_longer(a, missing) if missing and i in lengths.inputs else a for i, a in enumerate(arrays)]
    return filled, length


def cut(lengths: Lengths, results: Sequence[Array], length: int) -> list[Array]:
    """The outputs at the length of the inputs."""
    if length == lengths.longest:
        return list(results)
    return [np.ascontiguousarray(r[:, :length]) if i in lengths.outputs else r for i, r in enumerate(results)]


def _longer(array: Array, missing: int) -> Array:
    return np.concatenate([array, np.zeros((len(array), missing, *array.shape[2:]), array.dtype)], axis=1)
