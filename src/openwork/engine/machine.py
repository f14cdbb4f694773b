"""This machine: its processor by name, and what an artifact that was tuned elsewhere should be told here."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

DOT_PRODUCTS = ("avx512amx", "avx512vnni", "avx2vnni", "neondot")
"""Sets of kernels with instructions for sums of products of bytes."""

MATRICES = "avx512amx"
"""The set whose blocks of matrices are slow on all others; how weights are packed is fixed in the file."""


@cache
def processor() -> str:
    """The processor's name: 'AMD EPYC 9B45 96-Core Processor'."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """Processor, cores and system of this machine."""
    return {"processor": processor(), "cores": os.cpu_count() or 1, "system": platform.platform()}


def other_processor(provenance: Mapping[str, Any]) -> str | None:
    """What to tell people who run an artifact on another processor than it was tuned on; None on the same."""
    cpu = provenance.get("cpu")
    if not isinstance(cpu, str) or cpu == processor():
        return None
    return (
        f"tuned on another processor ({cpu[:80]}; this is {processor()}): results are right, speed may not be "
        "the best; fit it to this machine with openwork.load(..., retune=True), or compile the model again"
    )


def notices(provenance: Mapping[str, Any], isa: str, threads: int) -> list[str]:
    """All that is different here from where the artifact was tuned, and a number of threads that will not help."""
    found = [text] if (text := other_processor(provenance)) else []
    tuned = provenance.get("tuned")
    before = tuned.get("threads") if isinstance(tuned, Mapping) else None
    if isinstance(before, int) and before != threads:
        found.append(f"tuned for {before} threads, runs with {threads}: engine.retune() fits it to them")
    if isinstance(provenance.get("isa"), str) and provenance["isa"] != isa:
        matrices = provenance["isa"] == MATRICES and "int8" in provenance
        remedy = "compiling the model again" if matrices else "engine.retune()"
        found.append(f"tuned for {provenance['isa'][:20]}, runs with {isa}: {remedy} fits it to that")
    if "int8" in provenance and isa not in DOT_PRODUCTS:
        found.append(
            f"int8 layers run without the CPU's dot products of bytes ({isa} has none: VNNI, dotprod): results are the "
            "same, but little faster than float32, or slower"
        )
    if threads > cores():
        found.append(f"{threads} threads on {cores()} cores: more threads than cores make it slower")
    return found
