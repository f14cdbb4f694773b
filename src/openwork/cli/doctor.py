"""`openwork doctor`: what this machine offers, and what to do about what is missing."""

import contextlib
import importlib
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from .. import __version__, plugins
from ._options import Json
from ._output import show
from ._tables import table
from .data import known, root, state

_LEVELS = (
    ("AVX-512", {"avx512f", "avx512bw", "avx512dq", "avx512vl"}),
    ("AVX-512 VNNI", {"avx512_vnni"}),
    ("AMX", {"amx_tile", "amx_int8"}),
    ("AVX2", {"avx2", "fma"}),
    ("NEON", {"asimd"}),
)


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    name: str
    state: str
    """'ok', 'missing' (Openwork cannot work) or 'optional' (something more would work with it)."""
    found: str
    remedy: str = ""


def command(json: Json = False) -> int:
    """Say what this machine offers and what to do about what is missing. Exit code 1 if something needed is missing."""
    found = list(findings())
    missing = [f.name for f in found if f.state == "missing"]
    colours = {
        "ok": "[green]ok[/green]",
        "missing": "[bold red]missing[/bold red]",
        "optional": "[yellow]optional[/yellow]",
    }
    rows = [(f.name, colours[f.state], f.found + (f"\n[bold]{f.remedy}[/bold]" if f.remedy else "")) for f in found]
    show(
        {"ok": not missing, "findings": [asdict(f) for f in found]},
        table(("", "", "found, and what to do"), rows),
        json,
    )
    return 1 if missing else 0


def findings() -> Iterator[Finding]:
    """Everything the doctor looks at, in order."""
    yield Finding("openwork", "ok", f"{__version__} in {Path(__file__).parent.parent}")
    yield Finding("python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield _library("torch", "torch 2.6 or later: pip install torch")
    yield _compiler()
    yield _cpu()
    yield _threads()
    yield _native()
    yield from _peers()
    yield _data()


def _library(name: str, remedy: str) -> Finding:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return Finding(name, "ok", metadata.version(name))
    return Finding(name, "missing", "not installed", remedy)


def _compiler() -> Finding:
    """Needed to build Openwork only, so a wheel works without."""
    for name in filter(None, (os.environ.get("CXX"), "c++", "g++", "clang++")):
        if path := shutil.which(name):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                said = subprocess.run(
                    [path, "--version"], capture_output=True, text=True, timeout=10, check=True
                ).stdout
                return Finding("compiler", "ok", f"{said.splitlines()[0]} ({path})")
    return Finding("compiler", "optional", "no C++ compiler", "to build from source: apt-get install g++ (or clang)")


def _cpu() -> Finding:
    model, flags = "", set[str]()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = set(value.split())
    levels = [name for name, needed in _LEVELS if needed <= flags]
    described = f"{model or platform.processor() or platform.machine()}; {', '.join(levels) or 'baseline'}"
    if levels or not flags:
        return Finding("cpu", "ok", described)
    return Finding(
        "cpu", "optional", described, "the portable kernels run here; AVX2 or AVX-512 is several times faster"
    )


def _threads() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("threads", "ok", f"{usable} of {os.cpu_count()} cores usable; choose with --threads")


def _native() -> Finding:
    try:
        library = importlib.import_module("openwork.engine._native")
    except ImportError as error:
        return Finding(
            "native library",
            "missing",
            f"cannot be loaded: {error}",
            "build it: pip install -e . (needs a C++ compiler)",
        )
    found = f"kernels that run here, best first: {', '.join(library.isas())}"
    return Finding("native library", "ok", f"{found}; the CPU offers {', '.join(library.cpu_features()) or 'no more'}")


def _peers() -> Iterator[Finding]:
    """Engines to compare with. Their classes import nothing, so a look does not load the engines."""
    from ..engine.peers.base import Peer

    for name, peer in plugins.every("engine.peers", Peer).items():  # type: ignore[type-abstract]
        available = peer().available()
        if available:
            yield Finding(f"peer {name}", "ok", peer().version or "installed")
        else:
            yield Finding(f"peer {name}", "optional", "not installed", available.reason)


def _data() -> Finding:
    here = [name for name in known() if state(name)["there"]]
    absent = [name for name in known() if name not in here]
    found = f"{root()}: {', '.join(here)}"
    if not absent:
        return Finding("data", "ok", found)
    return Finding(
        "data", "optional", found, f"not here: {', '.join(absent)}; openwork data get NAME, or set OPENWORK_DATA"
    )
