"""`fuzz_artifacts.py FILE BEGIN END`: hostile variants of FILE are refused, or load and run. Prints how many of each.

Any other exception, a crash, or a variant that takes longer than a few seconds ends the process with an error.
"""

import copy
import resource
import signal
import sys
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from mutations import hostile, taken_apart

from openwork.engine.engine import Engine
from openwork.errors import ArtifactError, EngineError
from openwork.formats.artifact import from_bytes

SECONDS = 15
MEMORY = 6 << 30
LARGEST_INPUT = 1 << 22


def attempt(content: bytes, threads: int) -> str:
    """What became of one variant."""
    try:
        engine = Engine(from_bytes(content), threads)
    except ArtifactError:
        return "refused"
    if sum(np.prod(spec.shape, dtype=np.float64) for spec in engine.inputs) > LARGEST_INPUT:
        return "large"
    try:
        engine(*(np.ones(spec.shape, spec.dtype) for spec in engine.inputs))
    except (ArtifactError, EngineError):
        return "stopped"
    return "ran"


def main(path: str, begin: int, end: int) -> None:
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    head, arrays = taken_apart(Path(path).read_bytes())
    counts = dict.fromkeys(("refused", "large", "stopped", "ran"), 0)
    for seed in range(begin, end):
        content = hostile(copy.deepcopy(head), dict(arrays), np.random.default_rng(seed))
        signal.alarm(SECONDS)
        try:
            counts[attempt(content, threads=1 + seed % 2)] += 1
        except BaseException:
            print("seed", seed, file=sys.stderr)
            raise
    print(*counts.values())


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
