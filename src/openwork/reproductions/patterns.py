"""Every sparsity pattern on one network at the same sparsity: accuracy, bytes and measured speed side by side.

The papers compare accuracy with other papers and speed with other engines; here solver, schedule, seed and engine are
the same for all patterns, so what differs is the pattern.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from ..recipes.recipe import Recipe, Rule
from ..recipes.schedule import Rate
from ..report import charts
from ..solvers.admm import ADMM
from ..training.result import Result
from . import _latency, _pages
from ._cifar10 import SCHEDULE, STAGES
from .base import Reproduction, Row

WIDER = ("re:layer3\\.1.*conv", "re:layer3\\.2\\.conv1")
"""41 % of the weights: where a pattern knows powers of two only, these take the next one, which makes 90 % of 7/8."""

ENTRIES = 4 / 9
"""Share of a 3x3 kernel that its pattern keeps."""

Rules = tuple[tuple[str | tuple[str, ...], dict[str, Any]], ...]


def patterns(sparsity: float) -> dict[str, tuple[str, Rules]]:
    """Name, title and rules of every pattern at a sparsity of 0.75 or 0.9 in the stages."""
    plain = {"sparsity": sparsity}
    kernels = 1 - (1 - sparsity) / ENTRIES
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "unstructured": ("unstructured", {"kind": "unstructured", **plain}),
        "4x1": ("4x1 blocks", {"kind": "block", "shape": (4, 1), **plain}),
        "8x1": ("8x1 blocks", {"kind": "block", "shape": (8, 1), **plain}),
        "connectivity": ("whole kernels", {"kind": "connectivity", **plain}),
        "patdnn": (
            "kernel patterns and connectivity",
            {"kind": "and", "of": ({"kind": "pattern"}, {"kind": "connectivity", "sparsity": kernels})},
        ),
        "patdnn-group4": (
            "the same, shared by 4 filters",
            {
                "kind": "and",
                "of": ({"kind": "pattern", "group": 4}, {"kind": "connectivity", "sparsity": kernels, "group": 4}),
            },
        ),
        "block-column": (
            "columns of 8x144 blocks, balanced",
            {"kind": "block_column", "shape": (8, 144), **plain, "balanced": True},
        ),
        "gs-horizontal": ("gather-scatter GS(8, 8)", {"kind": "gather_scatter", "banks": 8, "per_row": 8, **plain}),
        "gs-vertical": ("gather-scatter GS(8, 1)", {"kind": "gather_scatter", "banks": 8, "per_row": 1, **plain}),
        "darb": ("density-adaptive blocks", {"kind": "darb", **plain}),
        "unified": (
            "4x4 blocks pruned, the others of one magnitude",
            {"kind": "unified", "shape": (4, 4), "pruned": sparsity, "unified": 1 - sparsity},
        ),
        "polarized": (
            "unstructured, one sign in 8 weights",
            {"kind": "and", "of": ({"kind": "polarized", "fragment": 8}, {"kind": "unstructured", **plain})},
        ),
        "crossbar": (
            "columns that fill tiles of 4 x 4",
            {"kind": "crossbar", "tile": (4, 4), "axis": "column", **plain},
        ),
        "column": ("whole columns", {"kind": "column", **plain}),
        "filter": ("whole filters", {"kind": "filter", **plain}),
    }
    every: dict[str, tuple[str, Rules]] = {
        name: (title, ((STAGES, constraint),)) for name, (title, constraint) in found.items()
    }
    few = round(1 / (1 - sparsity)) if sparsity < 0.8 else 8
    every["nm"] = (f"1:{few}" + " and 1:16" * (few == 8), _widened("nm", "m", few, {"n": 1}))
    every["nm-permuted"] = (
        f"1:{few}" + " and 1:16" * (few == 8) + ", channels in their best order",
        tuple((targets, {"kind": "permuted", "of": one}) for targets, one in every["nm"][1]),
    )
    every["circulant"] = (
        f"circulant blocks of {few}" + " and 16" * (few == 8),
        _widened("circulant", "block", few, {}),
    )
    return every


def _widened(kind: str, field: str, few: int, more: dict[str, Any]) -> Rules:
    """A pattern that keeps one of `few`; of 8, with 16 in some layers, so that one of 10 stays."""
    rules: Rules = ((STAGES, {"kind": kind, field: few, **more}),)
    return rules if few != 8 else (*rules, (WIDER, {"kind": kind, field: 16, **more}))


class Patterns(Reproduction):
    """ResNet-20 on CIFAR-10 with third-party weights, at 75 and 90 %, ADMM, 1 + 2 epochs, seed 0."""

    TITLE: ClassVar[str] = "Sparsity patterns on ResNet-20: accuracy against speed"
    MODEL: ClassVar[str] = "cifar10_resnet20"
    DATA: ClassVar[str] = "cifar10"

    def rows(self) -> Sequence[Row]:
        return [
            Row(f"{name}-{percent}", f"{percent} % {title}", self._recipe(f"{name}-{percent}", rules))
            for percent in (75, 90)
            for name, (title, rules) in patterns(percent / 100).items()
        ]

    @staticmethod
    def _recipe(name: str, rules: Rules) -> Recipe:
        return Recipe(
            name=name,
            rules=tuple(Rule(targets=targets, constraint=constraint) for targets, constraint in rules),
            solver=ADMM(rho=0.01, growth=2.0),
            schedule=SCHEDULE.model_copy(
                update={
                    # Short, so that all rows fit into three hours of two cores: what counts is that all get the same.
                    "shape_epochs": 1,
                    "updates_per_epoch": 4,
                    "retrain_epochs": 2,
                    "retrain_rate": Rate(peak=0.05, decay="cosine", warmup_epochs=0.25),
                    "norm_batches": 100,
                }
            ),
        )

    def measure(self, results: Mapping[str, Result], inputs: torch.Tensor, threads: int) -> dict[str, dict[str, Any]]:
        """Latency of all networks in turn in one run, of the dense one too; share of the multiply-add peak."""
        networks = {name: result.model for name, result in results.items()}
        return _latency.beside_dense(networks, next(iter(networks.values())), inputs, threads)

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        """A table and the frontier as a picture."""
        head = ("pattern", "accuracy", "zeros", "bytes", "latency", "times dense", "share of peak")
        lines = [
            (
                row["title"],
                f"{row['accuracy']:.2%}",
                f"{row['sparsity']:.1%}",
                f"{row['bytes']:,}",
                f"{row['us']:.1f} us",
                f"{row['times_dense']:.2f}",
                "" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}",
            )
            for row in document["rows"]
        ]
        parts = [
            f"# {document['title']}",
            "",
            f"    {document['command']}",
            "",
            _introduction(document),
            *_pages.remarks(document),
            "",
            "Share of peak: multiply-adds of the weights that are kept (of circulant blocks all of the matrix), each",
            "once for each output, over the latency of the whole network and the multiply-add peak of its threads.",
            "",
            "![Accuracy against speed](frontier.svg)",
            "",
            *_pages.table(head, lines),
            "",
        ]
        return {"page.md": "\n".join(parts), "frontier.svg": charts.standalone(self._frontier(document))}

    @staticmethod
    def _frontier(document: Mapping[str, Any]) -> str:
        dense, rows = document["dense"], document["rows"]
        groups: dict[str, list[tuple[float, float, str]]] = {"75 %": [], "90 %": []}
        for row in rows:
            pattern, _, percent = row["name"].rpartition("-")
            groups.setdefault(f"{percent} %", []).append((row["us"], 100 * row["accuracy"], pattern))
        groups["dense"] = [(dense["us"], 100 * rows[0]["dense_accuracy"], "dense")]
        drawn = charts.scatter(groups, ("latency, us", "Test accuracy, %"), "Accuracy against latency of each pattern")
        assert drawn is not None
        return drawn


def _introduction(document: Mapping[str, Any]) -> str:
    """What every row has in common, and the dense network that all are held against."""
    row, dense = document["rows"][0], document["dense"]
    epochs = " + ".join(str(n) for n in row["epochs"][1:3])
    machine, day = document["machine"]["processor"], document["when"][:10]
    return (
        f"{document['model']} on {document['data']}, from the zoo's own weights; every row ADMM with {epochs} epochs "
        f"(shape + retrain), seed {row['seed']}; the last epoch counts, and the test split decides nothing. Latency at "
        f"batch 1 on {document['threads']} threads of {machine}, {day}: all networks in turn in one run, medians of "
        f"{_latency.ROUNDS} rounds. The dense network takes {dense['us']:.1f} us and has {row['dense_accuracy']:.2%}; "
        f"its weights are {4 * row['weights']:,} bytes."
    )
