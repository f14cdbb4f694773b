"""What `make bench` runs: benchmarks of this folder one after the other, then docs/performance.md from what they found.

    python benchmarks/run.py [NAME ...]         # such as: targets scaling

A benchmark is one file with a command line of its own, which says more: python benchmarks/targets.py --help
Rows that were measured before are kept; remove runs/bench to measure them again.
"""

import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

USUAL = ("targets", "layers", "scaling", "training_step", "patterns", "page")
"""Without names. `sweep` takes hours: `make sweep`."""


def main(wanted: list[str]) -> int:
    """Run the benchmarks that are wanted, or the usual ones; 2 for an unknown name, 1 if one failed."""
    known = sorted(p.stem for p in HERE.glob("*.py") if not p.name.startswith("_") and p.name != Path(__file__).name)
    if unknown := [name for name in wanted if name not in known]:
        print(f"error: unknown benchmark {', '.join(unknown)}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or USUAL:
        print(f"## {name}\n", flush=True)
        began = time.monotonic()
        # A process each: what one leaves behind (threads, memory, compiled code) must not slow the next one down.
        if subprocess.run([sys.executable, HERE / f"{name}.py"]).returncode:
            failed.append(name)
        print(f"\n{name}: {time.monotonic() - began:.0f} s\n", flush=True)
    if failed:
        print(f"error: {', '.join(failed)} failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        raise SystemExit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        raise SystemExit(130) from None
