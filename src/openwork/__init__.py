"""Openwork: prune and quantize a trained PyTorch model into a shape that hardware runs fast, compile it and run it.

Everything is imported on first use, so that `openwork.load` runs an artifact without torch in the process.
"""

import importlib
from typing import Any

from . import plugins as _plugins

__version__ = "0.1.0"

_HOMES = {
    "Recipe": "recipes.recipe",
    "Rule": "recipes.recipe",
    "Schedule": "recipes.recipe",
    "Step": "recipes.recipe",
    "Purification": "recipes.purification",
    "Quantization": "recipes.quantization",
    "Budget": "recipes.budget",
    "allocate": "allocation.allocate",
    "Shaper": "training.shaper",
    "compress": "training.compress",
    "strip": "training.shaper",
    "purify": "slimming.purify",
    "slim": "slimming.slim",
    "quantize": "quantization.quantize",
    "compile": "compiler.compile",
    "load": "engine.engine",
    "Engine": "engine.engine",
    "bench": "engine.bench",
    "minmax": "solvers._minmax",
    "reweigh": "solvers._minmax",
    "membership_gain": "solvers._membership",
    "errors": "",
}
_ROOMS = ("constraints", "solvers", "losses")


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        home = _HOMES[name]
        if not home:
            return importlib.import_module(f"{__name__}.{name}")
        return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    if not name.startswith("_") and (found := _plugins.by_class_name(_ROOMS, name)) is not None:
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_HOMES, "__version__"])
