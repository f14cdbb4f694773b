"""Single weights against whole rows and columns: equal rates, storage by the formulas, and where lines cross."""

import math

import numpy as np
import pytest
import torch

from openwork import models
from openwork.recipes.match import fitted, match
from openwork.reproductions.base import Row
from openwork.reproductions.structure import BITS, RATES, Structure, at_accuracy, storage, tie

ROWS = Structure().rows()


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_the_network_becomes_as_small_as_the_name_says(row: Row) -> None:
    torch.manual_seed(0)
    found = fitted(match(row.recipe, models.resolve("cifar10_resnet20", weights=None)))
    total = sum(m.weight.numel() for m in found)
    kept = sum(int((m.constraint.project(m.weight) if m.constraint else m.weight).count_nonzero()) for m in found)
    assert total / kept == pytest.approx(int(row.name.rpartition("-")[2][:-1]), rel=0.06)


def test_rows_differ_in_the_constraint_alone() -> None:
    assert [row.name for row in ROWS] == [f"{kind}-{times}x" for kind in ("single", "whole") for times in RATES]
    assert len({(row.recipe.schedule.model_dump_json(), row.recipe.solver.model_dump_json()) for row in ROWS}) == 1


def test_storage_of_single_weights_counts_fillers() -> None:
    weight = np.zeros((1, 64), np.float32)
    weight[0, [0, 7, 40]] = 1.0
    # A gap of b bits leads up to 2^b - 1 places on, the largest number being a filler's.
    gaps, found = (1, 7, 33), []
    for b in range(1, 17):
        fillers = sum((gap - 1) // ((1 << b) - 1) for gap in gaps)
        found.append(b * (3 + fillers))
    assert storage("single", weight, 4) == 3 * 4 + min(found) < 64 * 4
    assert storage("single", np.ones((4, 4), np.float32), 2) == 32, "dense needs no index"


def test_storage_of_whole_rows_and_columns_is_a_small_matrix_and_two_maps() -> None:
    weight = np.zeros((6, 2, 2, 2), np.float32)
    weight[np.ix_([0, 3, 5], [1], [0, 1], [1])] = 1.0
    assert storage("whole", weight, 8) == 3 * 2 * 8 + 6 + 8
    assert storage("whole", np.ones((2, 2), np.float32), 2) == 8


def test_lines_tie_where_they_cross() -> None:
    assert tie([1, 4, 16], [64.0, 16.0, 4.0], 16.0) == 4
    assert tie([1, 4, 16], [64.0, 16.0, 4.0], 8.0) == pytest.approx(8)
    assert tie([1, 4, 16], [64.0, 64.0, 4.0], 64.0) == 1
    assert tie([1, 4], [64.0, 16.0], 8.0) is None and tie([1, 4], [64.0, 16.0], 80.0) is None
    assert math.isclose(tie([1, 2, 4], [10.0, 12.0, 3.0], 6.0) or 0, 2 * 2 ** (math.log(2) / math.log(4)))


def test_costs_at_an_accuracy_lie_between_those_of_rows() -> None:
    assert at_accuracy([0.9, 0.8, 0.6], [100.0, 50.0, 20.0], 0.8) == pytest.approx(50)
    assert at_accuracy([0.9, 0.8, 0.6], [100.0, 50.0, 20.0], 0.85) == pytest.approx(math.sqrt(5000))
    assert at_accuracy([0.9, 0.8], [100.0, 50.0], 0.7) is None and at_accuracy([0.9, 0.8], [100.0, 50.0], 0.95) is None


def test_the_page_says_who_wins_by_which_measure() -> None:
    def row(kind: str, times: int, us: float, bits: float, accuracy: float) -> dict[str, object]:
        return {
            "name": f"{kind}-{times}x", "title": f"{times}x, {kind}", "weights": 1600, "nonzero": 1600 // times,
            "dense_accuracy": 0.95, "accuracy": accuracy,
            "us": us, "times_dense": us / 100, "storage": {str(b): b * bits for b in BITS},
            "command": "openwork reproduce structure", "seed": 0, "epochs": [0, 2, 4], "seconds": 60.0, "threads": 2,
            "processor": "a machine", "when": "2026-01-02T03:04:05",
        }  # fmt: skip

    single = [row("single", 2, 80.0, 1200.0, 0.9), row("single", 4, 40.0, 600.0, 0.8)]
    whole = [row("whole", 2, 40.0, 900.0, 0.8), row("whole", 4, 20.0, 300.0, 0.7)]
    files = Structure().page({"title": "T", "epochs_scale": 1, "dense": {"us": 100.0}, "rows": [*single, *whole]})
    page = files["page.md"]
    assert set(files) == {"page.md", "storage.svg", "latency.svg"}
    assert "| 2.0x | 2.7x | 2.7x | 2.7x | 2.7x | 4.0x |" in page, page
    assert "| 4.0x | beyond | beyond | beyond | beyond | beyond |" in page
    assert "| 2.0x | 80.00% | 67% | 67% | 67% | 67% | 100% |" in page
    assert "| 4.0x | 70.00% | beyond | beyond | beyond | beyond | beyond |" in page
    assert "| 2x, whole | 800 (2.0x) | 80.00% | 3.6 | 0.9 | 0.5 | 0.2 | 40.0 us | 2.50x | 0.8 |" in page
