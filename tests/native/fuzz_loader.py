"""`fuzz_loader.py INPUTS [SECONDS [SEED]]`: hostile artifacts for the loader, under AddressSanitizer and UBSan.

Mutations of small artifacts of every kind of step are refused, or load and run; anything else ends the fuzzer, and the
input is saved. Prints how many were tried, loaded and ran.
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import artifacts
from builds import ROOT, build

DAY = 86_400.0


def fuzz(
    form: str,
    folder: Path,
    inputs: int,
    seconds: float = DAY,
    seed: int = 1,
    cmake: Sequence[str] | None = None,
) -> dict[str, float]:
    """The fuzzer's counts. Its form is built first; seeds, and inputs that went wrong, are written to the folder."""
    built = build(form, "openwork_fuzz", options=cmake)
    artifacts.write(folder / "seeds")
    by_libfuzzer = has_libfuzzer(built)
    options = libfuzzer(folder, inputs, seconds, seed) if by_libfuzzer else ("seeds", inputs, seconds, seed)
    command = [built / "openwork_fuzz", *map(str, options)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}, see {folder}/crash.openwork\n{done.stderr[-6000:]}")
    counts = json.loads(done.stdout)
    if by_libfuzzer:
        counts |= {"inputs": int(re.search(r"number_of_executed_units: +(\d+)", done.stderr)[1]), "slow": 0}
    return counts


def libfuzzer(folder: Path, inputs: int, seconds: float, seed: int) -> tuple[str, ...]:
    """Arguments of libFuzzer, which also ends at an input that takes too long. Our own driver takes plain numbers."""
    (folder / "corpus").mkdir(exist_ok=True)
    limits = f"-runs={inputs}", f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-max_len=65536", "-timeout=10"
    return *limits, "-print_final_stats=1", "-exact_artifact_path=crash.openwork", "corpus", "seeds"


def has_libfuzzer(built: Path) -> bool:
    """Whether libFuzzer drives what was built in a folder; else our driver does."""
    return "OPENWORK_HAS_LIBFUZZER:INTERNAL=1\n" in (built / "CMakeCache.txt").read_text()


if __name__ == "__main__":
    folder = ROOT / "build" / "fuzz"
    counts = fuzz("fuzz", folder, int(sys.argv[1]), *map(float, sys.argv[2:3]), *map(int, sys.argv[3:4]))
    print(json.dumps(counts))
