"""Arrays of a safetensors file where they lie: views into its content, nothing is copied."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .program import Array

TYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
"""Types of NumPy by the names that safetensors gives them."""


def views(header: Mapping[str, Any], data: memoryview) -> dict[str, Array]:
    """The arrays that a safetensors header describes, as read-only views of the bytes after it.

    Raises `ValueError`, `TypeError` or `LookupError` for a header that lies: arrays must fill the data without holes
    or overlaps, in the sizes that their shapes and types have.
    """
    entries = [(name, entry, *entry["data_offsets"]) for name, entry in header.items() if name != "__metadata__"]
    found, end = {}, 0
    for name, entry, begin, stop in sorted(entries, key=lambda e: e[2:]):
        shape = tuple(_count(n, "a size", name) for n in entry["shape"])
        if entry["dtype"] not in TYPES:
            raise ValueError(f"array {name!r:.60} has the unknown type {entry['dtype']!r:.20}")
        dtype = np.dtype(TYPES[entry["dtype"]])
        if _count(begin, "an offset", name) != end or _count(stop, "an offset", name) > len(data):
            raise ValueError(f"array {name!r:.60} leaves a hole, overlaps another or is cut off")
        if stop - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"array {name!r:.60} has {stop - begin} bytes, its shape and type need another number")
        found[name] = np.frombuffer(data[begin:stop], dtype).reshape(shape)
        end = stop
    if end != len(data):
        raise ValueError(f"{len(data) - end} bytes after the last array belong to none")
    return found


def _count(value: Any, what: str, name: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} of array {name!r:.60} is {value!r:.40}")
    return value
