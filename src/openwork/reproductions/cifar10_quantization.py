"""ResNet-20 on CIFAR-10 on few bits: weights on 4 to 1 bits, at once and in steps; pruned, with activations on 8.

All rows have six epochs, but five where quantization is not trained. Those of weights alone quantize every layer, the
stem and the classifier too, with one scale a layer; progressive ones go through more bits first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..recipes.quantization import ActivationGrids, WeightGrids
from ..recipes.quantization import Quantization as Settings
from ..recipes.recipe import Recipe
from ..recipes.rule import Rule
from ..recipes.schedule import Rate
from ..solvers.admm import ADMM
from ..training.result import Result
from . import _bits, _cifar10, _pages, _storage
from ._cifar10 import STAGES
from .base import Reproduction, Row

WAYS = {4: (8, 4), 3: (4, 3), 2: (4, 2), 1: (2, 1)}
"""Bits of each step of the progressive rows."""
SHAPE_EPOCHS, RETRAIN_EPOCHS = 4, 2
SCHEDULE = _cifar10.SCHEDULE.model_copy(
    update={
        "shape_epochs": SHAPE_EPOCHS,
        "retrain_epochs": RETRAIN_EPOCHS,
        "updates_per_epoch": 4,
        "retrain_rate": Rate(peak=0.01, decay="cosine"),
        "norm_batches": 100,
    }
)
SPARSITY = 0.904
"""90 % of all weights, the stem and the classifier being dense."""
PATTERNS = {
    "blocks": ("4x4 blocks of channels", {"kind": "channel_block", "shape": (4, 4), "sparsity": SPARSITY}),
    "4x1": ("4x1 blocks", {"kind": "block", "shape": (4, 1), "sparsity": SPARSITY}),
}
DROP = 0.003
"""What quantization may cost the pruned network."""


class Cifar10Quantization(Reproduction):
    """ResNet-20 on CIFAR-10 with third-party weights, at most 6 epochs, seed 0."""

    TITLE: ClassVar[str] = "ResNet-20 on CIFAR-10 in few bits"
    MODEL: ClassVar[str] = "cifar10_resnet20"
    DATA: ClassVar[str] = "cifar10"
    TOGETHER: ClassVar[bool] = False

    def rows(self) -> Sequence[Row]:
        found = []
        for bits in WAYS:
            words = f"weights on {bits} bit{'s' * (bits > 1)}"
            found += [
                Row(f"weights-{bits}-one-shot", f"{words}, ADMM at once", _one_shot(bits)),
                Row(f"weights-{bits}-progressive", f"{words}, ADMM in steps of fewer bits", _progressive(bits)),
            ]
        asked: dict[int, dict[str, Any]] = {8: {"quantization_drop": DROP}, 4: {}}
        for name, (pattern, constraint) in PATTERNS.items():
            for bits, held_to in asked.items():
                words = f"90 % in {pattern}, then {bits} bits"
                found += [
                    Row(f"{name}-int{bits}", f"{words}, one epoch", _integers(name, constraint, bits, 1), **held_to),
                    Row(
                        f"{name}-int{bits}-untrained",
                        f"{words}, untrained",
                        _integers(name, constraint, bits, 0),
                        **held_to,
                    ),
                ]
        return found

    def measure(self, results: Mapping[str, Result], inputs: Tensor, threads: int) -> dict[str, dict[str, Any]]:
        """Bytes of weights that are on levels by rules."""
        recipes = {row.name: row.recipe for row in self.rows() if row.recipe.quantize is None}
        return {
            name: {"storage": _storage.of(found.model, recipes[name])}
            for name, found in results.items()
            if name in recipes
        }

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {"page.md": _page(document)}


def _one_shot(bits: int) -> Recipe:
    return _bits.at_once(f"resnet20-{bits}-bits", bits, SCHEDULE)


def _progressive(bits: int) -> Recipe:
    return _bits.in_steps(_one_shot(bits), WAYS[bits])


def _integers(name: str, constraint: Mapping[str, Any], bits: int, epochs: int) -> Recipe:
    """Pruned and retrained, then quantized for `epochs` of the six."""
    schedule = SCHEDULE.model_copy(
        update={
            "shape_epochs": 2,
            "retrain_epochs": 3,
            "quantize_epochs": epochs,
            "retrain_rate": Rate(peak=0.05, decay="cosine", warmup_epochs=0.5),
            "quantize_rate": Rate(peak=0.005, decay="cosine"),
        }
    )
    settings = Settings(weights=WeightGrids(bits=bits), activations=ActivationGrids(bits=bits))
    return Recipe(
        name=f"resnet20-{name}-int{bits}" + "-untrained" * (epochs == 0),
        rules=(Rule(targets=STAGES, constraint=constraint),),
        solver=ADMM(rho=0.01, growth=1.5),
        quantize=settings,
        schedule=schedule,
    )


def _page(document: Mapping[str, Any]) -> str:
    rows = document["rows"]
    weights = [row for row in rows if row["name"].startswith("weights")]
    integers = [row for row in rows if not row["name"].startswith("weights")]
    head = ("row", "dense", "right after the cut", "after retraining", *_storage.HEAD)
    lines = [
        (
            row["title"],
            f"{row['dense_accuracy']:.2%}",
            _pages.after_the_cut(row),
            f"{row['accuracy']:.2%}",
            *_storage.row(row),
        )
        for row in weights
    ]
    whole = ("row", "dense", "weights kept", "pruned, float32", "quantized, untrained", "at the end", "state")
    others = [
        (
            row["title"],
            f"{row['dense_accuracy']:.2%}",
            f"{row['nonzero']:,}",
            _pages.quantized(row, "float32"),
            _pages.quantized(row, "calibrated"),
            f"{row['accuracy']:.2%}",
            row["state"],
        )
        for row in integers
    ]
    return "\n".join(
        [
            f"# {document['title']}",
            "",
            f"Third-party weights, {SHAPE_EPOCHS + RETRAIN_EPOCHS} epochs a row (5 where quantization is not trained),",
            "the last of which counts; the test split decides nothing.",
            *_pages.remarks(document),
            *(["", *_pages.table(head, lines)] if lines else []),
            *(
                [
                    "",
                    "## Weights and activations",
                    "",
                    f"Met: quantization costs at most {100 * DROP:g} points of the pruned network in float32.",
                    "",
                    *_pages.table(whole, others),
                ]
                if others
                else []
            ),
            *_pages.how(rows),
            "",
        ]
    )
