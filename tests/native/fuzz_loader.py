"""`fuzz_loader.py INPUTS [SECONDS [SEED]]`: hostile artifacts for the loader, under AddressSanitizer and UBSan.

Mutations of small artifacts of every kind of step are refused, or load and run; anything else ends the fuzzer, and the
input is saved. Prints how many were tried, loaded and ran.
"""

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import artifacts
from builds import ROOT, build

DAY = 86_400.0


def fuzz(form: str, folder: Path, inputs: int, seconds: float = DAY, seed: int = 1) -> dict[str, float]:
    """The fuzzer's counts. Its form is built first; seeds, and inputs that went wrong, are written to the folder."""
    program = build(form, "openwork_fuzz") / "openwork_fuzz"
    artifacts.write(folder / "seeds")
    command = [str(item) for item in (program, "seeds", inputs, seconds, seed)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}, see {folder}/crash.openwork\n{done.stderr[-6000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    folder = ROOT / "build" / "fuzz"
    counts = fuzz("fuzz", folder, int(sys.argv[1]), *map(float, sys.argv[2:3]), *map(int, sys.argv[3:4]))
    print(json.dumps(counts))
