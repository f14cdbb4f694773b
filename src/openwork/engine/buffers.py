"""Arrays outside the arena: what callers hand in, checked and converted, and what native steps see of it.

A buffer has the type that the model gives it, so that PyTorch segments work on the model's own types. The native
library knows floats only: of whole numbers and truth values it sees 32-bit integers, bit by bit, in a float array.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import EngineError
from ..formats.program import DTYPES, Array, TensorSpec

_INT32 = np.iinfo(np.int32)
_TYPES = {name: np.dtype(name) for name in DTYPES}  # comparing types is quick, reading their names is not


def allocate(externals: Sequence[TensorSpec], given: Mapping[int, Array]) -> list[Array]:
    """A buffer for each external, the given ones among them; whole numbers begin as zeros: all must fit 32 bits."""
    try:
        return [
            given[i] if i in given else (np.empty if e.dtype == "float32" else np.zeros)(e.shape, _TYPES[e.dtype])
            for i, e in enumerate(externals)
        ]
    except (MemoryError, ValueError) as error:
        raise EngineError(f"no memory for the inputs and outputs: {error}") from error


def checked(spec: TensorSpec, value: Any, any_length: bool = False) -> Array:
    """An input as a row-major array of the model's type; any batch, and if so said any length up to the compiled one.

    Raises `EngineError` for what is no array, another shape, or a type that cannot be converted without loss.
    """
    if isinstance(value, np.ndarray):
        array = value
    elif hasattr(value, "detach"):
        try:
            array = value.detach().cpu().numpy()
        except TypeError:  # bfloat16 and its like, which NumPy does not know
            raise _wrong_type(spec, value.dtype) from None
    else:
        kind = type(value).__name__
        raise EngineError(f"input {spec.name} is a {kind}, the engine takes a NumPy array or a tensor")
    fixed = 2 if any_length and array.shape[1:2] and 1 <= array.shape[1] <= spec.shape[1] else 1
    if array.ndim != len(spec.shape) or array.shape[fixed:] != spec.shape[fixed:]:
        rest = (f"1 to {spec.shape[1]}", *spec.shape[2:]) if any_length else spec.shape[1:]
        wanted = ", ".join(map(str, ("any batch", *rest) if spec.shape else ()))
        raise EngineError(f"input {spec.name} has shape {array.shape}, the engine takes ({wanted})")
    array = np.asarray(_converted(spec, array), order="C")
    return array if array.flags.writeable else array.copy()


def _converted(spec: TensorSpec, array: Array) -> Array:
    """The array in the input's type, where both are whole numbers and no value changes."""
    if array.dtype == _TYPES[spec.dtype]:
        return array
    if spec.dtype == "float32" or array.dtype.kind not in "iub":
        raise _wrong_type(spec, array.dtype)
    found = array.astype(spec.dtype)
    if not np.array_equal(found, array):
        raise EngineError(f"input {spec.name} holds {_odd_one(found, array)}, which its type {spec.dtype} cannot hold")
    return found


def _wrong_type(spec: TensorSpec, dtype: Any) -> EngineError:
    takes = spec.dtype if spec.dtype == "float32" else f"{spec.dtype} or another type of whole numbers"
    return EngineError(f"input {spec.name} has type {dtype}, the engine takes {takes}; convert it first")


def _odd_one(found: Array, array: Array) -> Any:
    return array[found != array].flat[0] if array.ndim else array


def filled(array: Array, batch: int) -> Array:
    """The array with zeros appended up to `batch` samples."""
    if len(array) == batch:
        return array
    return np.concatenate([array, np.zeros((batch - len(array), *array.shape[1:]), array.dtype)])


def seen_natively(externals: Sequence[TensorSpec], buffers: Sequence[Array]) -> list[Array]:
    """The buffers for the native library; `EngineError` for whole numbers beyond 32 bits."""
    return [b if b.dtype == np.float32 else _bits(e.name, b) for e, b in zip(externals, buffers, strict=True)]


def _bits(name: str, buffer: Array) -> Array:
    if buffer.dtype.itemsize > 4 and buffer.size and not _INT32.min <= buffer.min() <= buffer.max() <= _INT32.max:
        raise EngineError(
            f"{name} holds whole numbers from {buffer.min()} to {buffer.max()}, native steps take {_INT32.min} to "
            f"{_INT32.max}"
        )
    return np.ascontiguousarray(buffer.astype(np.int32)).view(np.float32)
