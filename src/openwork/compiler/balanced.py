"""Matrices whose rows have nearly as many weights as each other in every stretch of columns: packed into slots.

A panel is 16 rows. In a slot every one of them takes one input of a window of consecutive ones, which lies in
registers, so that nothing is gathered from memory and a position needs 2 to 5 bits. A row that has no weight for a slot
has a zero in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..engine import _native
from ..formats.program import Array

F32 = NDArray[np.float32]
Counts = NDArray[np.int32]

WINDOWS = (4, 8, 32)
"""Inputs in a window; consecutive windows overlap by half."""

PANEL = _native.UNIT
"""Rows that a slot serves."""

SPARSE = 0.75
"""Matrices with a larger share of non-zeros are not packed so."""

REGULAR = 1.25
"""Windows of 4 and 8 are for N:M sparsity: rows that all have the most weights of any group make at most so many."""

WORTHWHILE = 0.97
"""Rows are put into the order of their weights if that leaves fewer than this share of the slots."""

AT_A_TIME = 1 << 22
"""Rows times windows that are packed at a time, to bound memory."""


@dataclass(frozen=True)
class Fit:
    """How a matrix can be packed."""

    window: int
    slots: int
    """Of all panels."""
    order: NDArray[np.intp] | None
    """The row of the matrix at each place, if it is not its own."""


def fits(matrix: F32) -> dict[int, Fit]:
    """By window, how `matrix` [out, in] may be packed; nothing if it has too many weights."""
    weights = int(np.count_nonzero(matrix))
    if not 0 < weights <= SPARSE * matrix.size:
        return {}
    return {window: _fit(matrix, window) for window in WINDOWS if _plausible(matrix, window, weights)}


def _plausible(matrix: F32, window: int, weights: int) -> bool:
    """Whether a window can be right; without counting all slots."""
    if matrix.shape[1] > (window // 2) << 16:
        return False
    if window == WINDOWS[-1]:
        return True
    most = int(_counts(matrix, window).max())
    return most * len(matrix) * int(matrix.shape[1] // window) <= REGULAR * weights


def _fit(matrix: F32, window: int) -> Fit:
    counts = _counts(matrix, window // 2)
    rows = np.arange(len(matrix))
    order = np.argsort(-counts.sum(axis=1, dtype=np.int32), kind="stable")
    own, sorted_ = _slots(counts, rows), _slots(counts, order)
    return Fit(window, sorted_, order) if sorted_ < WORTHWHILE * own else Fit(window, own, None)


def _counts(matrix: F32, size: int) -> NDArray[np.uint8]:
    """Non-zeros in every `size` consecutive columns of each row, [out, in / size]; the last ones may be fewer."""
    pieces = -(-matrix.shape[1] // size)
    mask = np.zeros((len(matrix), pieces * size), bool)
    mask[:, : matrix.shape[1]] = matrix != 0
    counts: NDArray[np.uint8] = mask.reshape(len(matrix), pieces, size).sum(axis=2, dtype=np.uint8)
    return counts


def _slots(counts: NDArray[np.uint8], order: NDArray[np.intp]) -> int:
    """Slots of all panels."""
    parts = (_filled(counts[rows]) for rows in _parts(order, counts.shape[1]))
    return sum(int(_schedule(part.T.astype(np.int32))[0].sum()) for part in parts)


def _parts(order: NDArray[np.intp], windows: int) -> Iterator[NDArray[np.intp]]:
    """Whole panels of rows, as many as may be worked on at a time."""
    step = max(1, AT_A_TIME // windows // PANEL) * PANEL
    yield from (order[at : at + step] for at in range(0, len(order), step))


def _filled(rows: Array) -> Array:
    """Rows of zeros appended, up to whole panels."""
    return np.concatenate([rows, np.zeros((-len(rows) % PANEL, *rows.shape[1:]), rows.dtype)])


def _schedule(counts: Counts) -> tuple[Counts, Counts]:
    """Slots of each panel at every window, and how many weights each row puts there, from the non-zeros in every half
    window, [windows, rows].

    The fewest slots: a window gets one only if a row has a weight in its first half, which later windows do not reach,
    and every row then takes its next weights, as far as the window goes.
    """
    due = np.cumsum(counts, axis=0, dtype=np.int32)
    slots = np.zeros((len(due), due.shape[1] // PANEL), np.int32)
    taken, done = np.zeros_like(due), np.zeros(due.shape[1], np.int32)
    for at, least in enumerate(due):
        slots[at] = np.maximum((least - done).reshape(-1, PANEL).max(axis=1), 0)
        after = np.minimum(done + np.repeat(slots[at], PANEL), due[min(at + 1, len(due) - 1)])
        taken[at], done = after - done, after
    return slots, taken


def pack(matrix: F32, bias: F32, fit: Fit) -> dict[str, Array]:
    """The arrays of a native balanced step."""
    order = np.arange(len(matrix)) if fit.order is None else fit.order
    windows = -(-matrix.shape[1] // (fit.window // 2))
    parts = [_pack(_filled(matrix[rows]), fit.window) for rows in _parts(order, windows)]
    begins, values, words, counts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    arrays = {"start": start, "begin": begins, "index": words, "value": values, "bias": bias[order]}
    return arrays if fit.order is None else {**arrays, "place": order.astype(np.int32)}


def _pack(matrix: F32, window: int) -> tuple[Array, Array, Array, Array]:
    """Windows of slots, values, positions, and the number of slots of each panel."""
    half = window // 2
    counts = _counts(matrix, half)
    slots, taken = (found.T for found in _schedule(counts.T.astype(np.int32)))  # window by window
    panels, windows = slots.shape
    many = slots.sum(axis=1)
    begin = np.repeat(np.tile(np.arange(windows), panels), slots.reshape(-1))
    value = np.zeros((len(begin), PANEL), np.float32)
    zeros = _zeros(matrix, half, windows).reshape(panels, PANEL, windows)
    position = zeros[np.repeat(np.arange(panels), many), :, begin]

    row, column = np.nonzero(matrix)  # in the order in which rows take them
    times = taken.reshape(-1)
    at = np.repeat(np.tile(np.arange(windows), len(matrix)), times)
    place = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)  # among the row's weights of its window
    first = (np.cumsum(slots) - slots.reshape(-1)).reshape(slots.shape)
    slot = first[row // PANEL, at] + place
    value[slot, row % PANEL] = matrix[row, column]
    position[slot, row % PANEL] = column - at * half
    return begin.astype(np.uint16), value.reshape(-1), _words(position, many, window), many


def _zeros(matrix: F32, half: int, windows: int) -> NDArray[np.int64]:
    """For every row and window the position of a zero weight in its second half, so that an input that is not finite is
    seen there only where PyTorch sees it, too. A row without one has a weight for every slot that there can be."""
    mask = np.zeros((len(matrix), (windows + 1) * half), bool)
    mask[:, : matrix.shape[1]] = matrix != 0
    seconds = mask.reshape(len(matrix), windows + 1, half)[:, 1:]
    found: NDArray[np.int64] = half + seconds.argmin(axis=2)
    return found


def _words(position: NDArray[np.int64], many: NDArray[np.int32], window: int) -> NDArray[np.int32]:
    """Positions of the slots of each panel, those of one lane in the bits of a word as far as they fit."""
    bits = window.bit_length() - 1
    each = 32 // bits
    lines = -(-many // each)
    own = np.arange(len(position)) - np.repeat(np.cumsum(many) - many, many)  # a slot's number in its panel
    line = np.repeat(np.cumsum(lines) - lines, many) + own // each
    words = np.zeros((int(lines.sum()), PANEL), np.uint32)
    for at in range(each):
        those = own % each == at
        words[line[those]] |= position[those].astype(np.uint32) << np.uint32(bits * at)
    return words.view(np.int32).reshape(-1)
