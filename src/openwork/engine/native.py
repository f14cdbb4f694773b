"""How a program becomes a native one: every step is handed to the native library, which checks it.

Whatever the library refuses becomes an `ArtifactError` that names the step.
"""

import math
from typing import Any

import numpy as np

from ..errors import ArtifactError, EngineError, UsageError
from ..formats.artifact import plain_json
from ..formats.program import ProgramSpec, Step
from . import _native


def add_step(program: Any, step: Step, at: int = -1) -> None:
    """Append a step to a native program, or replace step `at`; `ArtifactError` says what is wrong with it.

    The step's arrays are used where they lie: they must not change afterwards.
    """
    try:
        arrays = {role: np.ascontiguousarray(a).reshape(-1) for role, a in step.arrays.items()}
        program.add(step.op, plain_json(dict(step.fields)), arrays, at)
    except (UsageError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"step {step.name!r} ({step.op}) is damaged: {reason[0]}") from error


def checked_isa(isa: str) -> str:
    """`isa`; `EngineError` unless this machine runs it."""
    if isa not in ("auto", *_native.isas()):
        raise EngineError(f"isa={isa!r} does not run on this machine; available: auto, {', '.join(_native.isas())}")
    return isa


def build(spec: ProgramSpec, threads: int, isa: str = "auto") -> Any:
    """The native program of `spec`."""
    sizes = [math.prod(e.shape) for e in spec.externals]
    try:
        program = _native.Program(spec.arena, sizes, threads, checked_isa(isa), list(spec.inputs), spec.turns)
    except (TypeError, ValueError, MemoryError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ArtifactError(f"the program's sizes are damaged: {reason[0]}") from error
    for step in spec.steps:
        add_step(program, step)
    return program
