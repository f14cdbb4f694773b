"""What was picked and why: the table that people see, and the file in a run folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import write_text
from ..recipes.budget import shown
from ..recipes.recipe import Recipe

FILE = "allocation.json"
"""Name of the file in a run folder."""


@dataclass(frozen=True)
class Layer:
    """What was picked for a layer."""

    name: str
    shape: tuple[int, ...]
    """`[out, in, kh, kw]` or `[out, in]`."""
    sparsity: float
    """What its constraint asks for; 0: the layer stays dense."""
    dense: Mapping[str, float]
    """Bytes, multiply-adds and, of a latency budget, microseconds of the dense layer; time where it was measured."""
    costs: Mapping[str, float]
    """The same as picked."""
    loss: float | None
    """What the network loses if this layer alone is so sparse; None: not measured."""
    accuracy: float | None
    """Validation accuracy of the network with this layer alone so sparse; None: not measured."""
    break_even: float | None
    """The least sparsity at which the layer is faster than dense; None: at none that was tried, or not timed."""
    why: str
    """Why it stays dense, or as a rule has it; empty where the budget picked."""


@dataclass(frozen=True)
class Spent:
    """One cost of the whole network."""

    dense: float
    limit: float
    predicted: float
    """The sum over layers, with what the rest of the network takes."""
    measured: float | None = None
    """Latency of the whole network with these layers cut by magnitude, compiled and timed; None: not measured."""

    def reached(self, name: str) -> str:
        """In words, of the cost called `name`."""
        found = self.predicted if self.measured is None else self.measured
        summed = "" if self.measured is None else f"; {shown(name, self.predicted)} as a sum over layers"
        share = f"{found / self.dense:.1%} of {shown(name, self.dense)} dense"
        return f"{shown(name, found)} of at most {shown(name, self.limit)} ({share}{summed})"


@dataclass(frozen=True)
class Allocation:
    """A recipe with the sparsities that its budget picked, and the reasons."""

    recipe: Recipe
    """Rules that name each layer and its sparsity; it has no budget any more."""
    layers: tuple[Layer, ...]
    """All layers that rules can hit."""
    spent: Mapping[str, Spent]
    """What has a limit: bytes, multiply-adds, microseconds."""
    start: Mapping[str, Any]
    """What it was made for: the recipe with the budget, a digest of the weights, and what was measured on."""

    def to_dict(self) -> dict[str, Any]:
        """The content of allocation.json."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "spent": {name: asdict(one) for name, one in self.spent.items()},
            "layers": [asdict(layer) | {"shape": list(layer.shape)} for layer in self.layers],
            "start": dict(self.start),
        }

    def __str__(self) -> str:
        figures = [f"{name} {one.reached(name)}" for name, one in self.spent.items()]
        dense = sum(layer.sparsity == 0 for layer in self.layers)
        return f"{'; '.join(figures)}; {dense} of {len(self.layers)} layers stay dense"

    def save(self, folder: Path) -> None:
        """Write allocation.json."""
        write_text(Path(folder) / FILE, json.dumps(self.to_dict(), indent=1))

    @classmethod
    def load(cls, folder: Path) -> "Allocation | None":
        """What `save` wrote; None if there is nothing. RunError if it cannot be read."""
        path = Path(folder) / FILE
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                recipe=Recipe.model_validate(content["recipe"]),
                layers=tuple(Layer(**{**layer, "shape": tuple(layer["shape"])}) for layer in content["layers"]),
                spent={name: Spent(**one) for name, one in content["spent"].items()},
                start=content["start"],
            )
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path} cannot be read ({error}); choose another folder or delete this one") from None
