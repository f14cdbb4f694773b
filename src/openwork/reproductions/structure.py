"""Single weights against whole rows and columns: at which rates they tie in storage, and at which in latency.

Pruning single weights leaves fewer of them at the same accuracy, but each needs an index, which does not shrink when
its value is quantized. The question is the paper's (Ma et al. 2019, arXiv:1907.02124); latency is that of our own
engine, in which the network of whole rows and columns is also slimmed.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..formats.packed.relative import Relative
from ..recipes.match import weights
from ..recipes.recipe import Recipe, Rule
from ..recipes.schedule import Rate
from ..report import charts
from ..slimming.slim import slim
from ..solvers.admm import ADMM
from ..training.result import Result
from . import _latency, _pages
from ._cifar10 import SCHEDULE, STAGES, stage_sparsity
from .base import Reproduction, Row, rate

RATES = (2, 4, 8, 16)
"""Weights of the whole dense network for each one that is kept."""
BITS = (32, 8, 4, 2)
"""Of a weight, for which storage is compared."""
KINDS = {"single": "single weights", "whole": "whole rows and columns"}


class Structure(Reproduction):
    """ResNet-20 on CIFAR-10 with third-party weights, both ways at equal rates, ADMM, 2 + 4 epochs, seed 0."""

    TITLE: ClassVar[str] = "Single weights against whole rows and columns"
    MODEL: ClassVar[str] = "cifar10_resnet20"
    DATA: ClassVar[str] = "cifar10"

    def rows(self) -> Sequence[Row]:
        return [
            Row(f"{kind}-{times}x", f"{times}x, {words}", _recipe(kind, times), paper="1907.02124")
            for kind, words in KINDS.items()
            for times in RATES
        ]

    def measure(self, results: Mapping[str, Result], inputs: Tensor, threads: int) -> dict[str, dict[str, Any]]:
        """Latency of all networks in turn in one run; bits that their weights take."""
        networks = {
            name: slim(result.model.eval(), inputs).model if name.startswith("whole") else result.model
            for name, result in results.items()
        }
        figures = _latency.beside_dense(networks, next(iter(results.values())).model, inputs, threads)
        for name, result in results.items():
            kind = name.partition("-")[0]
            layers = [_stored(kind, found.weight.detach().numpy()) for found in weights(result.model).values()]
            figures[name]["storage"] = {str(bits): sum(layer(bits) for layer in layers) for bits in BITS}
        return figures

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        """Tables, and a picture each of storage and latency against accuracy."""
        pictures = {
            "storage.svg": _picture(document, f"kilobytes at {BITS[2]} bits", _kilobytes),
            "latency.svg": _picture(document, "latency, us", lambda row: row["us"]),
        }
        return {"page.md": _page(document), **{name: charts.standalone(svg) for name, svg in pictures.items() if svg}}


def _recipe(kind: str, times: int) -> Recipe:
    sparsity = stage_sparsity(20, times)
    side = 1 - math.sqrt(1 - sparsity)
    both = {"kind": "and", "of": ({"kind": "filter", "sparsity": side}, {"kind": "column", "sparsity": side})}
    return Recipe(
        name=f"{kind}-{times}x",
        rules=(
            Rule(
                targets=STAGES,
                constraint={"kind": "unstructured", "sparsity": sparsity} if kind == "single" else both,
            ),
        ),
        solver=ADMM(rho=0.01, growth=1.5),
        schedule=SCHEDULE.model_copy(
            update={
                "shape_epochs": 2,
                "updates_per_epoch": 3,
                "retrain_epochs": 4,
                "retrain_rate": Rate(peak=0.05, decay="cosine", warmup_epochs=0.5),
                "norm_batches": 100,
            }
        ),
    )


def storage(kind: str, weight: NDArray[np.float32], bits: int) -> int:
    """Bits that a weight takes with `bits` a number: of single ones with relative indices, in the width that is best
    for the layer, or without any if that is less; of whole rows and columns with a bit map of each."""
    return _stored(kind, weight)(bits)


def _stored(kind: str, weight: NDArray[np.float32]) -> Callable[[int], int]:
    """`storage` for any number of bits."""
    if kind == "single":
        relative = Relative.pack(weight)
        numbers, places = int(np.count_nonzero(weight)), relative.entries * relative.bits
    else:
        matrix = weight.reshape(len(weight), -1) != 0
        numbers, places = int(matrix.any(1).sum()) * int(matrix.any(0).sum()), len(matrix) + len(matrix[0])
    return lambda bits: min(int(weight.size) * bits, numbers * bits + places)


def tie(rates: Sequence[float], costs: Sequence[float], cost: float) -> float | None:
    """The rate at which falling `costs` reach `cost`, on straight lines between logarithms; None outside of them."""
    return _crossing(rates, [math.log(c) for c in costs], math.log(cost))


def at_accuracy(accuracies: Sequence[float], costs: Sequence[float], accuracy: float) -> float | None:
    """The cost at which falling `accuracies` reach `accuracy`, on straight lines between these and logarithms of
    costs; None outside of them."""
    return _crossing(costs, accuracies, accuracy)


def _crossing(numbers: Sequence[float], heights: Sequence[float], height: float) -> float | None:
    """Where falling `heights` come down to `height`, between positive numbers whose logarithms are where they stand."""
    for (a, above), (b, below) in itertools.pairwise(zip(numbers, heights, strict=True)):
        if above >= height >= below:
            share = 0.0 if above == below else (above - height) / (above - below)
            return math.exp(math.log(a) + share * (math.log(b) - math.log(a)))
    return None


def _page(document: Mapping[str, Any]) -> str:
    rows, dense = document["rows"], document["dense"]
    single, whole = ([row for row in rows if row["name"].startswith(kind)] for kind in KINDS)
    head = ("row", "weights kept", "accuracy", *(f"kB at {b} bits" for b in BITS), "latency", "faster", "PPR")
    lines = [
        (
            row["title"],
            f"{row['nonzero']:,} ({rate(row):.1f}x)",
            f"{row['accuracy']:.2%}",
            *(f"{row['storage'][str(b)] / 8e3:.1f}" for b in BITS),
            f"{row['us']:.1f} us",
            f"{1 / row['times_dense']:.2f}x",
            f"{rate(row) * row['times_dense']:.1f}",
        )
        for row in rows
    ]
    parts = [
        f"# {document['title']}",
        "",
        "Question and storage formulas: Ma et al. 2019, [1907.02124](https://arxiv.org/abs/1907.02124). ResNet-20 on",
        "CIFAR-10 from third-party weights, ADMM, equal epochs; the last epoch counts; the test split decides nothing.",
        "Storage is of convolutions and classifier, indices included; numbers are counted as quantized to so many",
        "bits, but accuracy is that of 32. PPR is the paper's pruning-to-performance ratio, rate over speed-up: 1 is",
        "ideal. Networks of whole rows and columns are slimmed first. All were timed in turn in one run; dense takes",
        f"{dense['us']:.1f} us.",
        *_pages.remarks(document),
        "",
        "![Storage against accuracy](storage.svg)",
        "",
        "![Latency against accuracy](latency.svg)",
        "",
        *_pages.table(head, lines),
    ]
    if single and whole:
        parts += ["", "## Where they tie", "", _TIES, "", *_pages.table(*_ties(single, whole, dense))]
        parts += ["", "## At the same accuracy", "", _EQUAL, "", *_pages.table(*_equal(single, whole, dense))]
    return "\n".join([*parts, *_pages.how(rows), ""])


_MEASURES = (*(f"storage at {b} bits" for b in BITS), "latency")

_TIES = (
    "The rate of single weights that takes as much as the row of whole rows and columns does; a rate below means that "
    "single weights, which keep more accuracy at equal rates, win by that measure."
)

_EQUAL = (
    "What single weights take of what whole rows and columns do, at a rate at which they are as accurate; below 100 %, "
    "single weights win by that measure."
)


def _ties(
    single: Sequence[Mapping[str, Any]], whole: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    rates = [1.0, *(rate(row) for row in single)]
    lines = []
    for row in whole:
        found = [tie(rates, costs, cost) for costs, cost in zip(_costs(single, dense), _cost(row), strict=True)]
        lines.append((f"{rate(row):.1f}x", *("beyond" if one is None else f"{one:.1f}x" for one in found)))
    return ("whole rows and columns", *_MEASURES), lines


def _equal(
    single: Sequence[Mapping[str, Any]], whole: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    accuracies = [single[0]["dense_accuracy"], *(row["accuracy"] for row in single)]
    lines = []
    for row in whole:
        found = [at_accuracy(accuracies, costs, row["accuracy"]) for costs in _costs(single, dense)]
        shares = ["beyond" if a is None else f"{a / b:.0%}" for a, b in zip(found, _cost(row), strict=True)]
        lines.append((f"{rate(row):.1f}x", f"{row['accuracy']:.2%}", *shares))
    return ("whole rows and columns", "accuracy", *_MEASURES), lines


def _cost(row: Mapping[str, Any]) -> list[float]:
    """What a row takes by each measure."""
    return [*(row["storage"][str(b)] for b in BITS), row["us"]]


def _costs(single: Sequence[Mapping[str, Any]], dense: Mapping[str, Any]) -> list[list[float]]:
    """By each measure, what the dense network and then the rows of single weights take."""
    whole = [*(single[0]["weights"] * b for b in BITS), dense["us"]]
    return [list(costs) for costs in zip(whole, *map(_cost, single), strict=True)]


def _kilobytes(row: Mapping[str, Any]) -> float:
    return float(row["storage"][str(BITS[2])] / 8e3)


def _picture(document: Mapping[str, Any], label: str, cost: Callable[[Mapping[str, Any]], float]) -> str | None:
    groups = {
        words: [
            (cost(row), 100 * row["accuracy"], f"{rate(row):.0f}x") for row in document["rows"] if kind in row["name"]
        ]
        for kind, words in KINDS.items()
    }
    return charts.scatter(groups, (label, "Test accuracy, %"), f"Accuracy against {label}")
