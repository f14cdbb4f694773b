"""Fair timing of several sides on a machine that other work shares.

Two runs an hour apart differ by more than two engines do. So every round times every side, in an order drawn
anew, and a ratio compares figures of the same rounds only.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BLOCK_SECONDS = 0.01
"""How long a side runs without a break in its turn: long enough to fill its caches and wake its threads."""

PAUSE_SECONDS = 0.003
"""Rest before a side's turn, in which the threads of the side before stop spinning."""

_RESAMPLES = 2000

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def measure(
    runs: Sequence[Callable[[], Any]], repeats: int, warmup: int, progress: Progress | None = None
) -> np.ndarray:
    """Seconds an inference of each run in each round, [runs, repeats]; every round times all runs, in random order."""
    calls = []
    for run in runs:
        for _ in range(warmup):
            run()
        start = time.perf_counter()
        run()
        calls.append(int(np.clip(BLOCK_SECONDS / (time.perf_counter() - start), 3, 200)))
    found = np.empty((len(runs), repeats))
    order = np.random.default_rng(0)
    for turn in range(repeats):
        if progress is not None:
            progress("measuring", turn, repeats)
        for side in order.permutation(len(runs)):
            found[side, turn] = _block(runs[side], calls[side])
    if progress is not None:
        progress("measuring", repeats, repeats)
    return found


def _block(run: Callable[[], Any], calls: int) -> float:
    """Median seconds of `calls` inferences in a row, after a rest and one that is not counted."""
    time.sleep(PAUSE_SECONDS)
    run()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def ratio_interval(theirs: np.ndarray, ours: np.ndarray) -> tuple[float, float, float]:
    """Ratio of the medians of two sides, [rounds] each, with the ends of its 95 % interval.

    A percentile bootstrap that draws whole rounds, so that what slows a round down counts on both sides.
    Source: Efron and Tibshirani 1993, 'An Introduction to the Bootstrap', chapter 13.
    """
    draw = np.random.default_rng(0).integers(0, len(ours), (_RESAMPLES, len(ours)))
    ratios = np.median(theirs[draw], axis=1) / np.median(ours[draw], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(theirs) / np.median(ours)), float(low), float(high)
