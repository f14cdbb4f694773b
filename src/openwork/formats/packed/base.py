"""What a storage format is: a weight as a few arrays, packed and unpacked bit for bit, and checked when it is loaded.

A format is a frozen dataclass. Its fields are NumPy arrays, which are what is stored and counted, and plain numbers or
strings, which are the settings. Weights are `[out, in, kh, kw]` or `[out, in]`, float32.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors.numpy import save as serialize

from ... import plugins
from ...errors import ArtifactError, ShapeError
from ...files import write_bytes

F32 = NDArray[np.float32]
ROOM = "formats.packed"


@dataclass(frozen=True)
class Packed(ABC):
    """A weight of one pattern, stored.

    `pack` raises `ShapeError` if the weight is no member of the pattern, or too large for the format's index types. An
    object that exists is valid: `check` runs whenever one is made, so a loaded file is as good as a packed weight.
    """

    shape: tuple[int, ...]
    """Of the weight."""

    def __post_init__(self) -> None:
        size = (int(n) for n in self.shape)
        object.__setattr__(self, "shape", tuple(size))
        self._require(len(self.shape) >= 2 and min(self.shape) >= 1, "the shape has no weights")
        self.check()

    @classmethod
    @abstractmethod
    def pack(cls, weight: F32, **settings: Any) -> Self:
        """Store `weight`; the settings are those of the pattern (a constraint's `layout()`)."""

    @abstractmethod
    def unpack(self) -> F32:
        """The weight, bit for bit (zeros are +0.0)."""

    @abstractmethod
    def check(self) -> None:
        """Raise `ArtifactError` unless every size and index is what the format says."""

    @classmethod
    def kind(cls) -> str:
        """The format's name: the file that defines it."""
        return cls.__module__.rpartition(".")[2]

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored, by field name."""
        return {f.name: value for f in fields(self) if isinstance(value := getattr(self, f.name), np.ndarray)}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays: what the weight takes in memory and, but for a short header, in a file."""
        return sum(array.nbytes for array in self.arrays.values())

    def save(self, path: str | Path) -> None:
        """Write a safetensors file, whole or not at all."""
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.arrays}
        metadata = {"openwork_weight": json.dumps({"format": self.kind(), **settings})}
        arrays = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        write_bytes(Path(path), serialize(arrays, metadata))

    # ---- for the formats ----

    @property
    def rows(self) -> int:
        """Outputs."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Of the matrix [out, in*kh*kw]."""
        return math.prod(self.shape[1:])

    def _require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise ArtifactError(f"{self.kind()}: {problem}")

    def _require_array(self, name: str, dtype: Any, *shape: int) -> None:
        """The array `name` has this type and shape; -1 stands for any size."""
        array = self.arrays.get(name)
        if array is None:
            raise ArtifactError(f"{self.kind()}: {name!r} is not an array")
        fits = array.ndim == len(shape) and all(n in (-1, m) for n, m in zip(shape, array.shape, strict=True))
        self._require(
            array.dtype == np.dtype(dtype) and fits,
            f"{name!r} is {array.dtype} {list(array.shape)}, not {np.dtype(dtype)} {list(shape)}",
        )

    def _require_within(self, name: str, low: int, high: int) -> None:
        """Every number of the array `name` is in [low, high)."""
        array = self.arrays[name]
        if array.size and not (int(array.min()) >= low and int(array.max()) < high):
            raise ArtifactError(f"{self.kind()}: {name!r} holds numbers outside [{low}, {high})")

    def _require_starts(self, name: str, total: int) -> None:
        """The array `name` rises from 0 to `total`: the prefix sums of what each part holds."""
        starts = self.arrays[name].astype(np.int64)
        rising = starts.size > 0 and starts[0] == 0 and starts[-1] == total and bool((np.diff(starts) >= 0).all())
        self._require(rising, f"{name!r} does not rise from 0 to {total}")


def find(kind: str) -> type[Packed]:
    """The format called `kind`."""
    return plugins.find(ROOM, kind, Packed)  # type: ignore[type-abstract]


def pack(kind: str, weight: F32, **settings: Any) -> Packed:
    """Store `weight` in the format called `kind`."""
    return find(kind).pack(np.ascontiguousarray(weight, np.float32), **settings)


def load(path: str | Path) -> Packed:
    """The weight in a file that `save` wrote; `ArtifactError` says what is wrong with it."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            head = json.loads((file.metadata() or {})["openwork_weight"])
    except (OSError, safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ArtifactError(f"{path} is not a packed weight of Openwork ({error})") from None
    if not isinstance(head, dict) or head.get("format") not in plugins.names(ROOM):
        raise ArtifactError(f"{path}: unknown format {head.get('format') if isinstance(head, dict) else head!r}")
    return restored(find(head.pop("format")), {**head, **arrays}, path)


def restored(cls: type[Packed], content: Mapping[str, Any], path: str | Path) -> Packed:
    """The weight with these fields; `ArtifactError`, naming `path`, if they are not those of `cls` or wrong."""
    wanted = {f.name: f for f in fields(cls)}
    if set(content) != set(wanted):
        raise ArtifactError(f"{path}: {cls.kind()} has {', '.join(sorted(wanted))}, not {', '.join(sorted(content))}")
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    try:
        return cls(**settings)
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"{path}: {cls.kind()}: {error}") from None


def fits(kind: str, what: str, value: int, dtype: Any) -> None:
    """Raise `ShapeError` if `value` is too large for the index type of a format."""
    limit = int(np.iinfo(dtype).max)
    if value > limit:
        raise ShapeError(f"{kind}: {what} {value} does not fit into {np.dtype(dtype)} (at most {limit}); choose csr")
