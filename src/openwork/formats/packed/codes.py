"""Weights on quantization levels: a code of a few bits each, in the places of a sparsity pattern's own format."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ... import plugins
from ...errors import ArtifactError, ShapeError
from . import _bits, base
from .base import F32, Packed

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

KINDS = {"uniform": "multiples", "nonzero": "multiples", "power_of_two": "powers", "codebook": "values"}
"""Which numbers codes stand for, by the scheme of the levels."""
MOST = 9
"""Bits of a code, at most: 8, and one more where a zero lies beside 256 levels."""
PART = 1 << 22
"""Weights of a row whose common divisor is sought at once."""
INDICES = ("uint8", "uint16", "uint64", "int16", "int32")
"""Types of the arrays of patterns, but for the numbers."""


@dataclass(frozen=True)
class Codes(Packed):
    """`bits` bits a number, 4 bytes a scale (of a codebook: 4 bytes for each of its values), and what the pattern's
    format takes for indices.

    `multiples`: W = scale * number. `powers`: W = +-scale * 2^(1 - |number|), or 0. `values`: W = scale[number - 1], or
    0. The whole numbers are a weight in the format `pattern`, whose floats are stored as codes here and whose other
    arrays as they are; without a pattern there is a code for every weight, row by row. With `zero` a code is the number
    itself, in two's complement or, of `values`, unsigned; else there is no number 0, and a code is its sign and
    |number| - 1, or, of `values`, number - 1.
    """

    kind_of_numbers: str
    """multiples, powers or values."""
    bits: int
    """Of a code."""
    zero: bool
    """Whether there is a code for zero."""
    pattern: str
    """Format of the numbers; empty: none."""
    settings: Mapping[str, Any]
    """Plain fields of that format."""
    fields: tuple[tuple[str, str, tuple[int, ...]], ...]
    """Its arrays: name, type, shape."""
    places: NDArray[np.uint8]
    """Bytes of those that are no floats, one after the other."""
    codes: NDArray[np.uint8]
    """Bit stream."""
    scale: F32
    """[1 or out, 1]; of `values` the codebooks, [1 or out, values]."""

    @classmethod
    def pack(
        cls,
        weight: F32,
        bits: int = 8,
        scheme: str = "uniform",
        per: str = "layer",
        pattern: str = "",
        settings: Mapping[str, Any] | None = None,
        **rest: Any,
    ) -> Self:
        """Store a weight on levels, in the smallest of three ways: dense, with relative indices, or as `pattern` does,
        which is given `settings`."""
        if not np.isfinite(weight).all():
            raise ShapeError(_NO_MEMBER.format(bits))
        rows = weight.reshape(1 if per == "layer" else len(weight), -1)
        kind = KINDS[scheme]
        scale, numbers = _found(kind, rows, bits)
        matrix = numbers.reshape(weight.shape).astype(np.float32)
        found = [cls._made(weight.shape, kind, bits, scale, None, matrix)]
        # An index has at least a bit; so few weights must be left that this can pay.
        few = np.count_nonzero(matrix) * (bits + 1) < matrix.size * found[0].bits
        for name in sorted({pattern, "relative" if few else ""} - {"", "csr"}):
            try:
                inner = base.pack(name, matrix, **(settings or {} if name == pattern else {}))
            except ShapeError:  # where channels have scales of their own, the numbers may lie in no pattern
                continue
            found.append(cls._made(weight.shape, kind, bits, scale, inner, matrix))
        best = min(found, key=lambda packed: packed.nbytes)
        if not np.array_equal(best.unpack(), weight):
            raise ShapeError(_NO_MEMBER.format(bits))
        return best

    @classmethod
    def _made(cls, shape: tuple[int, ...], kind: str, bits: int, scale: F32, inner: Packed | None, matrix: F32) -> Self:
        arrays = inner.arrays if inner else {}
        floats = (
            [array.ravel() for array in arrays.values() if array.dtype == np.float32] if inner else [matrix.ravel()]
        )
        numbers = np.concatenate(floats).astype(np.int64)
        zero = bool((numbers == 0).any())
        limit = (1 << bits) - 1 if kind == "values" else (1 << bits - 1) - 1
        width = bits + (zero and int(np.abs(numbers).max()) > limit)
        others = [np.ascontiguousarray(a).view(np.uint8).ravel() for a in arrays.values() if a.dtype != np.float32]
        return cls(
            shape,
            kind,
            width,
            zero,
            inner.kind() if inner else "",
            {k: v for k, v in vars(inner).items() if k not in arrays and k != "shape"} if inner else {},
            tuple((name, str(a.dtype), a.shape) for name, a in arrays.items()),
            np.concatenate([np.zeros(0, np.uint8), *others]),
            _bits.pack_even(_encoded(numbers, kind, width, zero), width),
            scale,
        )

    @property
    def value_bytes(self) -> int:
        """Bytes of codes and scales alone: what publications call data, where they leave out indices."""
        return self.codes.nbytes + self.scale.nbytes

    def numbers(self) -> Packed | None:
        """The numbers as a weight in the pattern's format; None without one."""
        if not self.pattern:
            return None
        content: dict[str, Any] = {"shape": self.shape, **{k: _frozen(v) for k, v in self.settings.items()}}
        numbers, places = self._decoded(), self.places
        for name, dtype, shape in self.fields:
            size = math.prod(shape)
            if dtype == "float32":
                content[name], numbers = numbers[:size].reshape(shape), numbers[size:]
            else:
                size *= np.dtype(dtype).itemsize
                self._require(size <= len(places), "'places' is too short")
                content[name], places = np.frombuffer(places[:size].tobytes(), dtype).reshape(shape), places[size:]
        self._require(len(places) == 0, "'places' is too long")
        try:
            return base.restored(base.find(self.pattern), content, "codes")
        except ArtifactError as error:
            raise ArtifactError(f"codes: {error}") from None

    def unpack(self) -> F32:
        inner = self.numbers()
        numbers = (inner.unpack() if inner else self._decoded()).reshape(len(self.scale), -1)
        if self.kind_of_numbers == "multiples":
            found = numbers * self.scale
        elif self.kind_of_numbers == "powers":
            found = np.ldexp(self.scale, np.minimum(1 - np.abs(numbers), 0).astype(np.int32)) * np.sign(numbers)
        else:
            values = np.pad(self.scale, ((0, 0), (1, 0)))
            found = np.take_along_axis(values, numbers.astype(np.int64), axis=1)
        return (found + np.float32(0)).reshape(self.shape)

    def check(self) -> None:
        self._require(self.kind_of_numbers in KINDS.values(), f"{self.kind_of_numbers!r} are no numbers")
        self._require(type(self.bits) is int and 1 <= self.bits <= MOST, f"codes of {self.bits!r} bits")
        self._require(type(self.zero) is bool, f"zero is {self.zero!r}")
        values = self.kind_of_numbers == "values"
        self._require_array("scale", np.float32, -1, -1 if values else 1)
        self._require(len(self.scale) in (1, self.rows), f"{len(self.scale)} scales for {self.rows} outputs")
        self._require_array("places", np.uint8, -1)
        self._require_array("codes", np.uint8, -(-self._count() * self.bits // 8))
        inner = self.numbers()
        numbers = inner.unpack() if inner else self._decoded()
        most = float(np.abs(numbers).max(initial=0)) if self.kind_of_numbers == "multiples" else 1.0
        largest = float(np.abs(self.scale).max(initial=0)) * max(most, 1.0)
        self._require(largest <= float(np.finfo(np.float32).max), "'scale' is NaN, infinite or too large")
        if values:
            self._require(int(numbers.max(initial=0)) <= self.scale.shape[1], "'codes' holds one beyond the codebook")

    def _count(self) -> int:
        """Codes that are stored."""
        if not self.pattern:
            return self.rows * self.columns
        try:
            fields = [(str(name), str(dtype), tuple(map(int, shape))) for name, dtype, shape in self.fields]
        except (TypeError, ValueError):
            fields = [("", "", ())]
        self._require(self.pattern in plugins.names(base.ROOM), f"unknown format {self.pattern!r}")
        fine = all(dtype in (*INDICES, "float32") and min(shape, default=0) >= 0 for _, dtype, shape in fields)
        self._require(fine and isinstance(self.settings, Mapping), "the pattern's fields are none")
        object.__setattr__(self, "fields", tuple(fields))
        return sum(math.prod(shape) for _, dtype, shape in fields if dtype == "float32")

    def _decoded(self) -> F32:
        """What the codes stand for."""
        code = _bits.unpack_even(self.codes, self.bits, self._count())
        half = 1 << self.bits - 1
        if self.kind_of_numbers == "values":
            number = code if self.zero else code + 1
        elif self.zero:
            number = code - (code >= half) * 2 * half
        else:
            number = (code % half + 1) * np.where(code >= half, -1, 1)
        return number.astype(np.float32)


_NO_MEMBER = "codes: the weights are on no levels of {} bits; project them first"


def _encoded(numbers: I64, kind: str, bits: int, zero: bool) -> I64:
    """The codes of numbers, none below 0."""
    if kind == "values":
        return numbers - (not zero)
    if zero:
        return numbers & ((1 << bits) - 1)
    codes: I64 = np.abs(numbers) - 1 + (numbers < 0) * (1 << bits - 1)
    return codes


def _found(kind: str, rows: F32, bits: int) -> tuple[F32, F64]:
    """Scales or codebooks [groups, ...], and the number that stands for each weight of `rows`."""
    if kind == "values":
        return _codebooks(rows, bits)
    largest = np.abs(rows).max(axis=1, keepdims=True)
    if kind == "multiples":
        scale = _divisors(rows, largest)
        numbers = rows / np.where(scale > 0, scale, 1)
        if (np.abs(numbers) > 1 << bits - 1).any():
            raise ShapeError(_NO_MEMBER.format(bits))
        return scale.astype(np.float32), numbers
    halvings = np.frexp(np.where(largest > 0, largest, 1))[1] - np.frexp(rows)[1]
    if (halvings[rows != 0] >= (1 << bits - 1) - 1).any():
        raise ShapeError(_NO_MEMBER.format(bits))
    return largest, np.sign(rows) * (halvings + 1.0)


def _divisors(rows: F32, largest: F32) -> F64:
    """The largest number of which every weight of a row is a multiple, [groups, 1]; 0 where all are zero."""
    least = np.min(np.abs(rows), axis=1, keepdims=True, where=rows != 0, initial=np.inf)
    least = np.where(np.isfinite(least), least, 0).astype(np.float64)
    multiples = rows / np.where(least > 0, least, 1)
    if np.array_equal(multiples, np.round(multiples)):  # mostly so, and seen sooner
        return least
    exponent, found = np.frexp(largest)[1], np.zeros(largest.shape, np.int64)
    for at in range(0, rows.shape[1], PART):
        # A level is no less than 2^-8 of the largest and has 24 binary digits: 2^-40 of it is all that can count.
        whole = np.ldexp(np.abs(rows[:, at : at + PART]).astype(np.float64), 40 - exponent)
        found = np.gcd(found, np.gcd.reduce(whole.astype(np.int64), axis=1, keepdims=True))
    divisors: F64 = np.ldexp(found.astype(np.float64), exponent - 40)
    return divisors


def _codebooks(rows: F32, bits: int) -> tuple[F32, F64]:
    """The values of each row, rising, and the place from 1 on of every weight in them."""
    books, numbers = [], np.zeros(rows.shape)
    for row, number in zip(rows, numbers, strict=True):
        book = np.unique(row[row != 0])
        number[:] = np.where(row != 0, np.searchsorted(book, row) + 1, 0)
        books.append(book)
    longest = max(map(len, books))
    if longest > 1 << bits:
        raise ShapeError(_NO_MEMBER.format(bits))
    return np.stack([np.pad(book, (0, longest - len(book))) for book in books]), numbers


def _frozen(value: Any) -> Any:
    """Lists as tuples: JSON knows no difference."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
