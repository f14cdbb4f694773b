"""Small numbers side by side in a stream of bits, the lowest bit of each first, as are the bits of a byte."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

PART = 1 << 20
"""Numbers that are taken at once: a multiple of 8, so that parts end with whole bytes."""


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


def pack_even(numbers: NDArray[Any], width: int) -> Bytes:
    """As `pack`, all numbers in `width` bits; of many numbers it needs less memory."""
    places = np.arange(width)
    parts = [numbers[at : at + PART] for at in range(0, len(numbers), PART)]
    found = [np.packbits(((part[:, None] >> places) & 1).astype(np.uint8), bitorder="little") for part in parts]
    return np.concatenate([np.zeros(0, np.uint8), *found])


def unpack_even(stream: Bytes, width: int, count: int) -> NDArray[np.int64]:
    """The `count` numbers that `pack_even` was given."""
    found = np.zeros(count, np.int64)
    for at in range(0, count, PART):
        part = found[at : at + PART]
        bits = np.unpackbits(stream[at * width // 8 :][: -(-PART * width // 8)], bitorder="little")
        for place in range(width):
            part |= bits[place : len(part) * width : width].astype(np.int64) << place
    return found


def length(widths: NDArray[Any]) -> int:
    """Bytes of the stream."""
    return -(-int(widths.sum()) // 8)


def _places(widths: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of every bit of the stream, the number that it belongs to and its place there."""
    widths = widths.astype(np.int64)
    number = np.repeat(np.arange(len(widths)), widths)
    return number, np.arange(len(number)) - np.repeat(np.cumsum(widths) - widths, widths)
