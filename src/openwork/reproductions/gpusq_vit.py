"""A small vision transformer on CIFAR-10 in GPUSQ-ViT's two stages: 2:4 sparsity, then 8 or 4 bits, both distilled.

The paper's networks and ImageNet need a data centre. This transformer has six layers and begins with random weights, so
it is held against itself: the same network after as many epochs without pruning, and pruned without a teacher.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor

from ..losses.base import Loss
from ..losses.feature import Feature
from ..losses.labels import Labels
from ..losses.soft import Soft
from ..recipes.quantization import ActivationGrids, Quantization, WeightGrids
from ..recipes.recipe import Recipe
from ..recipes.rule import Rule
from ..recipes.schedule import OptimizerSettings, Rate, Schedule
from ..solvers.magnitude import Magnitude
from ..training.result import Result
from . import _dense, _pages
from .base import Reproduction, Row

DENSE_EPOCHS, RETRAIN_EPOCHS, QUANTIZE_EPOCHS = 8, 4, 2
"""Of every row; those that are not quantized retrain for these epochs, too."""
SCHEDULE = Schedule(
    dense_epochs=DENSE_EPOCHS,
    shape_epochs=0,
    retrain_epochs=RETRAIN_EPOCHS + QUANTIZE_EPOCHS,
    batch_size=128,
    dense_rate=Rate(peak=1e-3, decay="cosine", warmup_epochs=1, final=0.1),
    retrain_rate=Rate(peak=5e-4, decay="cosine", warmup_epochs=0.5),
    quantize_rate=Rate(peak=1e-4, decay="cosine"),
    optimizer=OptimizerSettings(kind="adam", weight_decay=0.05),
    seed=0,
)
LOSSES: tuple[Loss, ...] = (
    Labels(weight=1.0),
    Soft(weight=1.0, temperature=2.0),
    Feature(layers=("blocks.4", "blocks.5"), weight=5.0, by_loss=True),
)
"""The labels, and of the dense network its probabilities and what its last blocks give."""
PRUNED = Rule(targets="linear", constraint={"kind": "nm", "n": 2, "m": 4}, ignore="head")


class GPUSQViT(Reproduction):
    """2:4 and 8 or 4 bits on a transformer of six layers, 8 + 6 epochs, seed 0."""

    TITLE: ClassVar[str] = "A vision transformer with 2:4 sparsity in 8 and 4 bits"
    MODEL: ClassVar[str] = "vit_cifar"
    DATA: ClassVar[str] = "cifar10"
    HOLDOUT: ClassVar[int] = 5000
    TOGETHER: ClassVar[bool] = False

    def rows(self) -> Sequence[Row]:
        return [
            Row("dense", "dense all the way", _recipe("dense", _dense.everything("linear"))),
            Row("2of4", "2:4, learning from the labels", _recipe("2of4", PRUNED)),
            Row("2of4-distilled", "2:4, distilled", _recipe("2of4-distilled", PRUNED, losses=LOSSES)),
            *(
                Row(f"2of4-int{bits}", f"2:4, then {bits} bits, distilled", _quantized(bits), paper="2305.10727")
                for bits in (8, 4)
            ),
        ]

    def measure(self, results: Mapping[str, Result], inputs: Tensor, threads: int) -> dict[str, dict[str, Any]]:
        """Weights and bytes of the layers that are pruned."""
        return {name: {"pruned": _pruned(found)} for name, found in results.items()}

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {"page.md": _page(document)}


def _recipe(name: str, rule: Rule, quantize: Quantization | None = None, **schedule: Any) -> Recipe:
    return Recipe(
        name=f"vit-{name}",
        rules=(rule,),
        solver=Magnitude(),
        quantize=quantize,
        schedule=SCHEDULE.model_copy(update=schedule),
    )


def _quantized(bits: int) -> Recipe:
    epochs = {"retrain_epochs": RETRAIN_EPOCHS, "quantize_epochs": QUANTIZE_EPOCHS}
    grids = Quantization(weights=WeightGrids(bits=bits), activations=ActivationGrids(bits=bits))
    return _recipe(f"2of4-int{bits}", PRUNED, grids, losses=LOSSES, **epochs)


def _pruned(found: Result) -> dict[str, int]:
    layers = [layer for layer in found.layers if layer.constraint and layer.constraint.startswith("NM(")]
    return {
        "weights": sum(math.prod(layer.shape) for layer in layers),
        "bytes": sum(layer.bytes or 0 for layer in layers),
    }


def _page(document: Mapping[str, Any]) -> str:
    rows = document["rows"]
    dense = next((row for row in rows if row["name"] == "dense"), None)
    head = ("row", "after 8 epochs", "right after the cut", "before quantization", "quantized, untrained", "at the end")
    lines = [
        (
            row["title"],
            f"{row['dense_accuracy']:.2%}",
            _pages.after_the_cut(row) if row is not dense else "",
            *(_pages.quantized(row, when) for when in ("float32", "calibrated")),
            f"{row['accuracy']:.2%}",
            "" if dense is None else f"{100 * (row['accuracy'] - dense['accuracy']):+.2f}",
            _smaller(row["pruned"]),
        )
        for row in rows
    ]
    return "\n".join(
        [
            f"# {document['title']}",
            "",
            f"Six layers of 96 over 4x4 patches, {DENSE_EPOCHS} epochs of dense training from random weights that all",
            f"rows share, then {RETRAIN_EPOCHS + QUANTIZE_EPOCHS} more for each, so that pruned networks are held",
            "against a dense one that has trained as long; 45,000 images to train on, the last epoch counts. Pruned",
            "are all linear layers but the classifier; quantized are inputs and weights of all layers. The teacher is",
            f"the dense network after {DENSE_EPOCHS} epochs, which has not converged; students of it stay near it.",
            "",
            "The paper has DeiT and Swin on ImageNet: no loss in 8 bits, 0.2 to 0.5 points in 4 bits, and 6.4 and 12.7",
            "times smaller weights. Its 4-bit format prunes weights in pairs, with half as many indices as ours.",
            *_pages.remarks(document),
            "",
            *_pages.table((*head, "points against dense", "pruned layers smaller"), lines),
            *_pages.how(rows),
            "",
        ]
    )


def _smaller(pruned: Mapping[str, int]) -> str:
    return f"{4 * pruned['weights'] / pruned['bytes']:.2f}x" if pruned["weights"] else ""
