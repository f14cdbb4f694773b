"""What quantized weights take: codes alone, codes and indices, and files."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ..constraints.and_ import And
from ..constraints.base import Constraint
from ..constraints.levels import Levels
from ..formats.packed import base
from ..formats.packed.codes import Codes
from ..recipes.match import match
from ..recipes.recipe import Recipe
from ..recipes.stages import stages


def of(model: nn.Module, recipe: Recipe) -> dict[str, int]:
    """Bytes of all weights that `recipe` has put on levels: `codes` alone with their scales, as publications count
    data; `all` with indices; `files`, one a weight, as they lie on disk."""
    found = {"codes": 0, "all": 0, "files": 0}
    with tempfile.TemporaryDirectory() as folder:
        for m in match(stages(recipe, model)[-1].recipe, model):
            for levels in _levels(m.constraint):
                packed = base.pack(Levels.FORMAT, m.weight.detach().cpu().numpy(), **levels.layout())
                assert isinstance(packed, Codes)
                path = Path(folder) / "weight.safetensors"
                packed.save(path)
                found["codes"] += packed.value_bytes
                found["all"] += packed.nbytes
                found["files"] += path.stat().st_size
    return found


def row(figures: Mapping[str, Any]) -> tuple[str, str, str]:
    """Cells of a table: codes, all and files, each with how many times smaller that is than float32."""
    found, dense = figures["storage"], 4 * figures["weights"]
    codes, whole, files = (f"{found[name]:,} B ({dense / found[name]:,.0f}x)" for name in ("codes", "all", "files"))
    return codes, whole, files


HEAD = ("codes", "with indices", "files")


def _levels(constraint: Constraint | None) -> Iterator[Levels]:
    if isinstance(constraint, Levels):
        yield constraint
    elif isinstance(constraint, And):
        for part in constraint.of:
            yield from _levels(part)
