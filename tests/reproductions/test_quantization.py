"""Rows on few bits: equal epochs, the bits in their names, and bytes that are counted and written."""

import pytest
import torch

from openwork.constraints.levels import Levels
from openwork.models.lenet5 import build
from openwork.recipes.stages import stages
from openwork.reproductions import _storage, cifar10_quantization, quantization
from openwork.reproductions.base import Row

LENET, RESNET = quantization.Quantization().rows(), cifar10_quantization.Cifar10Quantization().rows()


def epochs(row: Row) -> int:
    steps, schedule = row.recipe.steps or (None,), row.recipe.schedule
    total = schedule.dense_epochs + schedule.quantize_epochs
    for step in steps:
        for phase in ("shape_epochs", "retrain_epochs"):
            own = getattr(step, phase, None)
            total += getattr(schedule, phase) if own is None else own
    return total


def test_progressive_rows_have_as_many_epochs_as_those_that_go_at_once() -> None:
    by_name = {row.name: row for row in [*LENET, *RESNET]}
    pairs = [name for name in by_name if name.endswith("-progressive")]
    assert len(pairs) == 6
    for name in pairs:
        progressive, at_once = by_name[name], by_name[name.replace("progressive", "one-shot")]
        assert abs(epochs(progressive) - epochs(at_once)) <= 1
        assert progressive.recipe.rules == at_once.recipe.rules
    assert {epochs(row) for row in RESNET if "untrained" not in row.name} == {6}


@pytest.mark.parametrize("row", LENET, ids=lambda row: row.name)
def test_every_layer_is_on_the_levels_of_the_row(row: Row) -> None:
    model = build(weights=None)
    last = stages(row.recipe, model)[-1].recipe
    assert all(isinstance(rule.constraint, Levels) for rule in last.rules)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                levels = last.rules[-1 if "fc" in name else 0].constraint
                parameter.copy_(levels.project(parameter))
    found = _storage.of(model, row.recipe)
    bits = sum(p.numel() * (2 if "fc" in n or "joint" not in row.name else 4) for n, p in weights(model))
    if "binary" in row.name:
        bits = sum(p.numel() for _, p in weights(model))
        assert found["codes"] == -(-430_500 // 8) + 4 * 4 == found["all"]  # 430,500 bits and four scales
    assert found["codes"] <= bits / 8 + 4 * 8 and found["all"] < found["files"] < found["all"] + 4 * 1000


def weights(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.dim() > 1]


def test_the_joint_row_comes_to_the_published_storage_with_what_it_keeps() -> None:
    model, row = build(weights=None), LENET[-1]
    last = stages(row.recipe, model)[-1].recipe
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for (name, weight), kept in zip(weights(model), quantization.KEPT["167x"], strict=True):
            places = torch.randperm(weight.numel(), generator=generator)[:kept]
            pruned = torch.zeros(weight.numel()).index_copy(0, places, torch.randn(kept, generator=generator))
            weight.copy_(last.rules[-1 if "fc" in name else 0].constraint.project(pruned.view(weight.shape)))
    found = _storage.of(model, row.recipe)
    assert sum(int(w.count_nonzero()) for _, w in weights(model)) == sum(quantization.KEPT["167x"]) <= 430_500 / 167
    assert found["codes"] == 798 and 4 * 430_500 / found["codes"] >= 1910 and found["all"] < 3600
