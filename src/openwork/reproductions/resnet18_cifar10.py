"""ResNet-18 on CIFAR-10 at 60x: whole columns, then whole filters, and purification of what is left (P-RM).

There are no third-party weights, so every row begins from random ones. Meant for a GPU: `--device cuda`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ..recipes.purification import Purification
from ..recipes.recipe import Recipe
from ..recipes.rule import Rule
from ..recipes.schedule import OptimizerSettings, Rate, Schedule
from ..recipes.steps import Step
from ..solvers.admm import ADMM
from . import _pages
from .base import Reproduction, Row

STAGES = r"re:layer\d\..*(conv\d|downsample\.0)"
"""All convolutions but the stem; it and the classifier are 0.06 % of the weights, and stay dense."""

KEPT = {"40x": 0.158, "60x": 0.126}
"""Share of columns that stay, and of the filters in the next step, for a rate of all weights."""

RATE = 59.84
"""The paper's."""

SCHEDULE = Schedule(
    dense_epochs=150,
    shape_epochs=40,
    retrain_epochs=60,
    batch_size=128,
    dense_rate=Rate(peak=0.1, decay="cosine", warmup_epochs=1),
    shape_rate=Rate(peak=0.01, decay="cosine", final=0.1),
    retrain_rate=Rate(peak=0.05, decay="cosine", warmup_epochs=1),
    optimizer=OptimizerSettings(kind="sgd", momentum=0.9, nesterov=True, weight_decay=5e-4),
    precision="bfloat16",
    channels_last=True,
    norm_batches=100,
    seed=0,
)
"""Shaping and retraining are those of each of the two steps."""

SOLVER = ADMM(rho=1e-3, growth=1.15)
"""One update an epoch; rho grows to a quarter."""


class ResNet18CIFAR10(Reproduction):
    """Columns, then filters, purified or not."""

    TITLE: ClassVar[str] = "ResNet-18 on CIFAR-10 at 60x: columns, filters and purification"
    MODEL: ClassVar[str] = "resnet18"
    DATA: ClassVar[str] = "cifar10"
    HOLDOUT: ClassVar[int] = 5000
    TOGETHER: ClassVar[bool] = False

    def rows(self) -> Sequence[Row]:
        ways = (
            ("60x", "purification off", "60x", None),
            ("60x-purified", "purification on", "60x", Purification(share=1e-3)),
            ("40x-purified", "purification on, from 40x", "40x", Purification(share=1e-3)),
        )
        return [
            Row(
                f"columns-filters-{name}",
                f"59.84x in columns, then filters, ADMM, {words}",
                _recipe(f"resnet18-{name}", KEPT[rate]).model_copy(update={"purify": purify}),
                paper="1905.00136",
                published=0.9322,
                published_rate=RATE,
                note="the paper names no counts by layer; ours are equal shares of columns and of filters",
                options={"classes": 10, "small": True},
            )
            for name, words, rate, purify in ways
        ]

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {"page.md": _page(document)}


def _recipe(name: str, kept: float) -> Recipe:
    columns, filters = (
        (Rule(targets=STAGES, constraint={"kind": kind, "sparsity": 1 - kept}),) for kind in ("column", "filter")
    )
    return Recipe(name=name, rules=filters, steps=(Step(rules=columns), Step()), solver=SOLVER, schedule=SCHEDULE)


def _page(document: Mapping[str, Any]) -> str:
    rows = document["rows"]
    return "\n".join(
        [
            f"# {document['title']}",
            "",
            "Rates are weights of the dense network for each one that is kept, of all convolutions and the classifier.",
            "Every row trains its own dense network from the same random weights on 45,000 images (the paper's reaches",
            "93.79 %), prunes columns, retrains, prunes filters of what is left, and retrains; purification follows",
            "each cut. The last epoch counts, and nothing is chosen by the test split.",
            *_pages.remarks(document),
            "",
            *_pages.beside_papers(rows),
            *_pages.notes(rows),
            *_pages.how(rows),
            "",
        ]
    )
