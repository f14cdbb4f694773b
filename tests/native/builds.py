"""Builds the native library by itself, as people install it or with checks compiled in, for tests."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESS = "-DOPENWORK_SANITIZE=address,undefined,float-cast-overflow"
FORMS = {
    "library": [],
    "asan": [ADDRESS],
    "tsan": ["-DOPENWORK_SANITIZE=thread"],
    "fuzz": [ADDRESS, "-DOPENWORK_FUZZ=ON"],
}
FORMS |= {f"{form}-portable": [*options, "-DOPENWORK_PORTABLE=ON"] for form, options in FORMS.items()}
"""Options of CMake by the name of the form; portable ones are built in half the time."""


def build(form: str, *goals: str, options: Sequence[str] | None = None) -> Path:
    """The folder in which `goals` have been built in that form, by its own options or these; warnings are errors."""
    into = ROOT / "build" / f"native-{form}"
    options = [
        *(FORMS[form] if options is None else options),
        f"-DCMAKE_INSTALL_PREFIX={into / 'installed'}",
        "-DCMAKE_INSTALL_LIBDIR=lib",
    ]
    called("cmake", "-S", "native", "-B", into, "-G", "Ninja", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", *options)
    called("cmake", "--build", into, "--target", *goals)
    return into


def called(*command: str | Path, timeout: float = 900, **environment: str) -> str:
    """What a command prints; any exit code but 0 is a failure that shows the end of it."""
    done = subprocess.run(
        command, cwd=ROOT, env={**tools(), **environment}, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    return done.stdout


def tools() -> dict[str, str]:
    """The environment with CMake and Ninja found where Python's own programs lie."""
    return {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
