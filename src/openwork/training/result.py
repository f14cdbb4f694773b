"""What `compress` gives back, and its form in result.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..allocation.costs import stored
from ..recipes.match import Match


@dataclass(frozen=True)
class Layer:
    """A layer's weight after compression."""

    name: str
    """Name in the model."""
    shape: tuple[int, ...]
    """`[out, in, kh, kw]` or `[out, in]`."""
    constraint: str | None
    """The constraint in words; None: left dense."""
    sparsity: float
    """Share of weights that are zero."""
    violations: int
    """Of the constraint's definition; 0 unless something is wrong."""
    note: str = ""
    """Why a layer that a rule asked for was left dense."""
    format: str | None = None
    """Storage format of its pattern (`openwork.formats.packed`); None: stored dense."""
    bytes: int | None = None
    """What the weight takes in it, or dense, of 4-byte values."""


@dataclass(frozen=True)
class LevelResult:
    """A sparser network inside the compressed one (nested sparsity)."""

    model: nn.Module
    """The weights of this level, zeros in place, with batch norm's averages of its own; a plain torch module."""
    accuracy: float
    """Share of right labels on the test split."""
    nonzero: int
    """Weights that are not zero."""


@dataclass(frozen=True)
class StepResult:
    """A step of a recipe that has several."""

    step: int
    """Place in the recipe's list, from 1."""
    validation_accuracy: float | None
    """Of the best attempt, share of right labels in [0, 1]; None where the data hold no examples out."""
    sparsity: float
    """Share of zeros among all weights of layers that rules can hit."""
    parent: int
    """The step whose model it began from; 0: the dense model."""
    tried: tuple[float | None, ...]
    """Validation accuracies of all attempts."""
    kept: bool
    """Whether the run went on from it: not if the accuracy was below the recipe's floor."""


@dataclass(frozen=True)
class Result:
    """A compressed model with its figures. Accuracies are shares in [0, 1] on the test split; weights exclude
    biases."""

    model: nn.Module
    """The model that was given, now with its final weights: zeros in place, a plain torch module, but for the rounding
    of layers' inputs where the recipe quantizes."""
    model_name: str
    recipe_name: str
    data_name: str
    dense_accuracy: float
    """Before pruning (after the dense phase, if the recipe has one)."""
    accuracy: float
    """Of the final weights, measured once, after the last epoch."""
    weights: int
    """Weights of all layers that rules can hit, constrained or not."""
    nonzero: int
    """Those that are not zero."""
    layers: tuple[Layer, ...]
    history: tuple[dict[str, Any], ...]
    """One entry an epoch: the lines of metrics.jsonl."""
    seconds: float
    """Time that the run took, interruptions left out."""
    command: str | None = None
    """What started the run."""
    run_dir: Path | None = None
    """Where the run was written; None: nowhere."""
    levels: tuple[LevelResult, ...] = ()
    """Levels 2, 3, ... of nested sparsity; their models are what `openwork.compile` takes as `levels`."""
    hardened: Mapping[str, float] = field(default_factory=dict)
    """Right after the cut (of the last step), before any retraining: `test_accuracy`, and `validation_accuracy` where
    the data hold examples out; empty for runs of earlier versions and for those that ended before their last step."""
    steps: tuple[StepResult, ...] = ()
    """Steps of the recipe, if it has several."""
    note: str = ""
    """Why the run ended before its last step."""
    quantized: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Of a recipe that quantizes, accuracies as in `hardened`: `float32`, of the network before that, and `calibrated`,
    of the quantized one before any training with it. The model then rounds the inputs of its layers, as `accuracy` was
    measured; `openwork.quantization.rounding.grids` has their scales."""

    @property
    def sparsity(self) -> float:
        """Share of zeros among all weights of layers that rules can hit."""
        return 1 - self.nonzero / self.weights

    def to_dict(self) -> dict[str, Any]:
        """The content of result.json."""
        return {
            "model": self.model_name,
            "recipe": self.recipe_name,
            "data": self.data_name,
            "dense": {"test_accuracy": self.dense_accuracy},
            "hardened": dict(self.hardened),
            **({"quantized": {name: dict(found) for name, found in self.quantized.items()}} if self.quantized else {}),
            "final": {
                "test_accuracy": self.accuracy,
                "sparsity": self.sparsity,
                "weights": self.weights,
                "nonzero": self.nonzero,
            },
            **(
                {"levels": [{"test_accuracy": level.accuracy, "nonzero": level.nonzero} for level in self.levels]}
                if self.levels
                else {}
            ),
            **({"steps": [asdict(step) | {"tried": list(step.tried)} for step in self.steps]} if self.steps else {}),
            **({"note": self.note} if self.note else {}),
            "layers": [asdict(layer) | {"shape": list(layer.shape)} for layer in self.layers],
            "seconds": self.seconds,
            "command": self.command,
        }

    @classmethod
    def from_dict(
        cls,
        content: Mapping[str, Any],
        model: nn.Module,
        levels: Sequence[LevelResult],
        history: Sequence[dict[str, Any]],
        run_dir: Path,
    ) -> "Result":
        """The result whose `to_dict` gave `content`."""
        final = content["final"]
        return cls(
            model=model,
            model_name=content["model"],
            recipe_name=content["recipe"],
            data_name=content["data"],
            dense_accuracy=content["dense"]["test_accuracy"],
            accuracy=final["test_accuracy"],
            weights=final["weights"],
            nonzero=final["nonzero"],
            layers=tuple(Layer(**{**layer, "shape": tuple(layer["shape"])}) for layer in content["layers"]),
            history=tuple(history),
            seconds=content["seconds"],
            command=content["command"],
            run_dir=run_dir,
            levels=tuple(levels),
            hardened=content.get("hardened", {}),
            steps=tuple(StepResult(**{**step, "tried": tuple(step["tried"])}) for step in content.get("steps", ())),
            note=content.get("note", ""),
            quantized=content.get("quantized", {}),
        )


def describe(found: Match) -> Layer:
    """A layer's figures, from its weights as they are now."""
    weight = found.weight.detach()
    form, size = stored(weight, found.constraint)
    return Layer(
        name=found.name,
        shape=tuple(weight.shape),
        constraint=None if found.constraint is None else str(found.constraint),
        sparsity=1 - int(torch.count_nonzero(weight)) / weight.numel(),
        violations=0 if found.constraint is None else found.constraint.violations(weight),
        note=found.note,
        format=form,
        bytes=size,
    )


def count(matches: list[Match]) -> tuple[int, int]:
    """All weights and those that are not zero; a weight that layers share counts once."""
    weights = {id(m.weight): m.weight.detach() for m in matches}.values()
    return sum(w.numel() for w in weights), sum(int(torch.count_nonzero(w)) for w in weights)
