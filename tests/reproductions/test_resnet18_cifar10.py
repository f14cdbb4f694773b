"""ResNet-18 at 60x: the network of the CIFAR kind, and the rate that two kinds of structure come to together."""

from pathlib import Path

import pytest
import torch

from openwork import models
from openwork.recipes.match import match
from openwork.recipes.stages import stages
from openwork.reproductions.base import Row, known
from openwork.reproductions.resnet18_cifar10 import RATE, ResNet18CIFAR10

ROWS = ResNet18CIFAR10().rows()


def test_the_network_keeps_every_pixel_up_to_the_second_stage() -> None:
    model = models.resolve("resnet18", **ROWS[0].options)
    assert sum(p.numel() for name, p in model.named_parameters() if p.dim() > 1) == 11_164_352
    seen: list[tuple[int, ...]] = []
    model.layer1.register_forward_hook(lambda module, x, y: seen.append(tuple(y.shape)))
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10) and seen == [(1, 64, 32, 32)]


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_columns_and_filters_come_to_the_rate(row: Row) -> None:
    torch.manual_seed(0)
    model = models.resolve("resnet18", **row.options)
    for stage in stages(row.recipe, model):
        for m in match(stage.recipe, model):
            if m.constraint is not None:
                m.weight.data.copy_(m.constraint.project(m.weight))
    weights = [p for p in model.parameters() if p.dim() > 1]
    rate = sum(w.numel() for w in weights) / sum(int(w.count_nonzero()) for w in weights)
    if "40x" in row.name:
        assert rate == pytest.approx(40, rel=0.03), "purification does the rest"
    else:
        assert rate == pytest.approx(RATE, rel=0.03) and rate >= RATE


def test_it_is_listed_with_its_paper_and_command(tmp_path: Path) -> None:
    (row,) = (
        row for row in known(tmp_path, tmp_path) if row["name"] == "resnet18_cifar10/columns-filters-60x-purified"
    )
    assert row["paper"] == "1905.00136" and (row["published"], row["published_rate"]) == (0.9322, RATE)
    assert row["state"] == "not run" and row["ours"] is row["our_rate"] is row["when"] is None
    assert row["command"] == "openwork reproduce resnet18_cifar10 --rows columns-filters-60x-purified"
