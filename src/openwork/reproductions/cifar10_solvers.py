"""Solvers on the same networks, at the same rates, in equally many epochs: what the cut costs, and what is left.

A paper on a solver compares it with others under settings of its own; here recipes differ in the solver alone, and one
of them in its steps. The last rows are the baseline that pruning must beat: a narrower network of about as many
weights, trained from random ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from ..recipes.recipe import Recipe
from ..recipes.rule import Rule
from ..recipes.schedule import Rate
from ..recipes.steps import Ladder
from ..report import charts
from ..solvers.admm import ADMM
from ..solvers.base import Solver
from ..solvers.group_lasso import GroupLasso
from ..solvers.magnitude import Magnitude
from ..solvers.reweighted import Reweighted
from ..solvers.slr import SLR
from . import _cifar10, _dense, _pages
from ._cifar10 import STAGES, stage_sparsity
from .base import Reproduction, Row, rate

RATES = (4, 8, 16)
"""Weights of the whole dense network for each one that is kept."""
PATTERNS: dict[str, tuple[str, dict[str, Any]]] = {
    "unstructured": ("single weights", {"kind": "unstructured"}),
    "4x1": ("4x1 blocks", {"kind": "block", "shape": (4, 1)}),
}
SHAPE_EPOCHS, RETRAIN_EPOCHS, UPDATES = 2, 4, 4
"""Of every row; and updates of the solver in an epoch of shaping."""
SOLVERS: dict[str, tuple[str, Solver]] = {
    "admm": ("ADMM", ADMM(rho=0.01, growth=1.5)),
    "progressive": ("ADMM in two steps", ADMM(rho=0.01, growth=1.5**2)),
    "slr": ("surrogate Lagrangian relaxation", SLR(rho=0.1, step=0.01)),
    "reweighted": ("reweighted", Reweighted(strength=3e-5, times=4, every=2, bounded=True)),
    "lasso": ("group lasso, proximal", GroupLasso(strength=0.05, bounded=True)),
    "magnitude": ("magnitude, gradually", Magnitude(gradual=True, ramp=SHAPE_EPOCHS * UPDATES * 3 // 4)),
}
"""Settings of each are the same for all rates and patterns; none was tuned to a row."""
WIDTHS = {4: 8, 8: 6, 16: 4}
"""Channels in the first stage of the narrower network, by the rate that it is held against."""

SCHEDULE = _cifar10.SCHEDULE.model_copy(
    update={
        "shape_epochs": SHAPE_EPOCHS,
        "retrain_epochs": RETRAIN_EPOCHS,
        "updates_per_epoch": UPDATES,
        "retrain_rate": Rate(peak=0.05, decay="cosine", warmup_epochs=1),
        "norm_batches": 200,
    }
)


class Cifar10Solvers(Reproduction):
    """ResNet-20 and -56 on CIFAR-10 with third-party weights, 2 + 4 epochs, seed 0."""

    TITLE: ClassVar[str] = "Solvers on ResNet-20 and ResNet-56 in equally many epochs"
    MODEL: ClassVar[str] = "cifar10_resnet20"
    DATA: ClassVar[str] = "cifar10"
    TOGETHER: ClassVar[bool] = False

    def rows(self) -> Sequence[Row]:
        return [*_pruned(20, RATES), *_from_scratch(), *_pruned(56, (8,), ("admm", "slr", "magnitude"))]

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        """The tables, and a picture of what the cut costs."""
        drawn = _cut(document)
        return {"page.md": _page(document), **({"cut.svg": charts.standalone(drawn)} if drawn else {})}


def _pruned(depth: int, rates: Sequence[int], methods: Sequence[str] = tuple(SOLVERS)) -> Iterator[Row]:
    name = "" if depth == 20 else f"resnet{depth}-"
    for times in rates:
        for pattern, (words, constraint) in PATTERNS.items():
            sparsity = stage_sparsity(depth, times)
            for method in methods:
                title, solver = SOLVERS[method]
                steps = 2 if method == "progressive" else 1
                recipe = Recipe(
                    name=f"{name}{method}-{pattern}-{times}x",
                    rules=(Rule(targets=STAGES, constraint={**constraint, "sparsity": sparsity}),),
                    solver=solver,
                    steps=Ladder(count=2).steps() if steps == 2 else (),
                    schedule=SCHEDULE.model_copy(
                        update={"shape_epochs": SHAPE_EPOCHS // steps, "retrain_epochs": RETRAIN_EPOCHS // steps}
                    ),
                )
                yield Row(
                    recipe.name,
                    f"ResNet-{depth}, {times}x in {words}: {title}",
                    recipe,
                    model=f"cifar10_resnet{depth}",
                )


def _from_scratch() -> Iterator[Row]:
    """As many epochs as the others have, all of them dense."""
    rule = _dense.everything(STAGES)
    schedule = SCHEDULE.model_copy(
        update={
            "dense_epochs": SHAPE_EPOCHS + RETRAIN_EPOCHS,
            "shape_epochs": 0,
            "retrain_epochs": 0,
            "dense_rate": Rate(peak=0.1, decay="cosine", warmup_epochs=1),
        }
    )
    for times, width in WIDTHS.items():
        yield Row(
            f"scratch-{times}x",
            f"ResNet-20 of {width} channels instead of 16, from random weights, against {times}x",
            Recipe(name=f"scratch-{times}x", rules=(rule,), schedule=schedule),
            options={"weights": None, "width": width},
        )


def _page(document: Mapping[str, Any]) -> str:
    rows = document["rows"]
    pruned = [row for row in rows if not row["name"].startswith("scratch")]
    head = ("row", "dense", "weights kept", "right after the cut", "after retraining")
    lines = [
        (
            row["title"],
            f"{row['dense_accuracy']:.2%}",
            f"{row['nonzero']:,} ({rate(row):.1f}x)",
            _pages.after_the_cut(row),
            f"{row['accuracy']:.2%}",
        )
        for row in pruned
    ]
    scratch = [
        (row["title"], f"{row['nonzero']:,}", f"{row['accuracy']:.2%}")
        for row in rows
        if row["name"].startswith("scratch")
    ]
    return "\n".join(
        [
            f"# {document['title']}",
            "",
            "Third-party weights, trained on all 50,000 images, so that none is left to validate on; the last epoch",
            f"counts. Rows shape for {SHAPE_EPOCHS} epochs, {UPDATES} updates of the solver in each, and retrain for",
            f"{RETRAIN_EPOCHS}, in one step or two; otherwise recipes differ in the solver alone. Rates are of all",
            "weights; stem and classifier stay dense. Right after the cut nothing else is adapted: batch norm's",
            "averages are those of shaping.",
            *_pages.remarks(document),
            *(["", "![Accuracy right after the cut](cut.svg)", "", *_pages.table(head, lines)] if lines else []),
            *(
                [
                    "",
                    "## From scratch",
                    "",
                    f"A narrower ResNet-20 from random weights in {SHAPE_EPOCHS + RETRAIN_EPOCHS} epochs. At 8x it has",
                    "more weights than the pruned networks: channels come in whole, even numbers.",
                    "",
                    *_pages.table(("row", "weights", "accuracy"), scratch),
                ]
                if scratch
                else []
            ),
            *_pages.how(rows),
            "",
        ]
    )


def _cut(document: Mapping[str, Any]) -> str | None:
    groups: dict[str, list[tuple[float, float, str]]] = {words: [] for words, _ in PATTERNS.values()}
    for row in document["rows"]:
        for pattern, (words, _) in PATTERNS.items():
            if f"-{pattern}-" in row["name"] and row["hardened"]:
                method = row["name"].partition(f"-{pattern}-")[0]
                groups[words].append((rate(row), 100 * row["hardened"]["test_accuracy"], method))
    return charts.scatter(groups, ("times smaller", "Test accuracy right after the cut, %"), "What the cut costs")
