"""Fair timing of several sides on a machine that other work shares.

Two runs an hour apart differ by more than two engines do. So every round times every side, in an order drawn
anew, and a ratio compares figures of the same rounds only.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import EngineError

BLOCK_SECONDS = 0.05
"""How long a side runs without a break in its turn: its caches fill, its threads wake and its clock settles."""

PAUSE_SECONDS = 0.003
"""How long no thread of the process may work before a side's turn begins."""

REST_LIMIT_SECONDS = 2.0
"""How long to wait for that. OpenMP's threads spin for up to 0.2 s after their work, by default."""

_IDLE_SHARE = 0.1
"""Share of a pause that counts as no work: waking up to look costs a little too."""

_RESAMPLES = 2000

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@runtime_checkable
class TimesItself(Protocol):
    """A side that runs in another process, where its clock must be."""

    def block(self, calls: int) -> float:
        """What `block` would find in that process."""


def measure(
    runs: Sequence[Callable[[], Any]], repeats: int, warmup: int, progress: Progress | None = None
) -> np.ndarray:
    """Seconds an inference of each run in each round, [runs, repeats]; every round times all runs, in random order."""
    calls = []
    for run in runs:
        calls.append(int(np.clip(BLOCK_SECONDS / block(run, warmup), 3, 200)))
    found = np.empty((len(runs), repeats))
    order = np.random.default_rng(0)
    for turn in range(repeats):
        if progress is not None:
            progress("measuring", turn, repeats)
        for side in order.permutation(len(runs)):
            found[side, turn] = block(runs[side], calls[side])
    if progress is not None:
        progress("measuring", repeats, repeats)
    return found


def block(run: Callable[[], Any], calls: int) -> float:
    """Median seconds of `calls` inferences in a row, after a rest and one that is not counted."""
    rest()
    if isinstance(run, TimesItself):
        return run.block(calls)
    run()
    seconds = []
    for _ in range(calls):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def rest() -> None:
    """Return when no thread of this process has worked for a while: what an engine's threads do after its turn
    (spin for more work, free memory) must not slow the next one down.

    Raises `EngineError` if they never stop.
    """
    deadline = time.perf_counter() + REST_LIMIT_SECONDS
    while True:
        worked, began = time.process_time(), time.perf_counter()
        time.sleep(PAUSE_SECONDS)
        if time.process_time() - worked <= _IDLE_SHARE * (time.perf_counter() - began):
            return
        if time.perf_counter() > deadline:
            raise EngineError(
                f"threads of this process still work {REST_LIMIT_SECONDS:g} s after an inference, so no other engine "
                "can be timed fairly; unset OMP_WAIT_POLICY and KMP_BLOCKTIME, and stop other work of this process"
            )


def ratio_interval(theirs: np.ndarray, ours: np.ndarray) -> tuple[float, float, float]:
    """Ratio of the medians of two sides, [rounds] each, with the ends of its 95 % interval.

    A percentile bootstrap that draws whole rounds, so that what slows a round down counts on both sides.
    Source: Efron and Tibshirani 1993, 'An Introduction to the Bootstrap', chapter 13.
    """
    draw = np.random.default_rng(0).integers(0, len(ours), (_RESAMPLES, len(ours)))
    ratios = np.median(theirs[draw], axis=1) / np.median(ours[draw], axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(np.median(theirs) / np.median(ours)), float(low), float(high)
