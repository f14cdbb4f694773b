"""Small numbers side by side in a stream of bits, the lowest bit of each first, as are the bits of a byte."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]


def pack(numbers: NDArray[Any], widths: NDArray[Any]) -> Bytes:
    """`numbers[i]` in `widths[i]` bits each; the last byte is completed with zeros."""
    number, bit = _places(widths)
    return np.packbits((numbers[number] >> bit) & 1, bitorder="little")


def unpack(stream: Bytes, widths: NDArray[Any]) -> NDArray[np.int64]:
    """The numbers that `pack` was given."""
    number, bit = _places(widths)
    bits = np.unpackbits(stream, count=len(number), bitorder="little").astype(np.int64)
    found = np.zeros(len(widths), np.int64)
    np.add.at(found, number, bits << bit)
    return found


def length(widths: NDArray[Any]) -> int:
    """Bytes of the stream."""
    return -(-int(widths.sum()) // 8)


def _places(widths: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every bit of the stream, the number that it belongs to and its place there."""
    widths = widths.astype(np.int64)
    number = np.repeat(np.arange(len(widths)), widths)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(widths) - widths, widths)
