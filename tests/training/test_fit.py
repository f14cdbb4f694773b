"""Optimizers of the training loop: fused where that is safe, with the steps of those that are not, and downhill where
weights are tied."""

from collections.abc import Iterator

import pytest
import torch
from tiny_task import TinyData
from torch import Tensor, nn

from openwork.recipes.recipe import Recipe, Rule
from openwork.recipes.schedule import OptimizerSettings, Schedule
from openwork.training.attempts import Span
from openwork.training.fit import Trainer, make_optimizer
from openwork.training.progress import Silent
from openwork.training.shaper import Shaper

SETTINGS = (
    OptimizerSettings(kind="sgd", momentum=0.9, nesterov=True, weight_decay=0.01),
    OptimizerSettings(kind="adam", weight_decay=0.01),
)


def network(channels_last: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 4))
    return model.to(memory_format=torch.channels_last) if channels_last else model  # type: ignore[call-overload]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
def test_fused_steps_are_those_of_single_operations(settings: OptimizerSettings, channels_last: bool) -> None:
    schedule = Schedule(optimizer=settings)
    one, other = network(channels_last), network(channels_last)
    fused, plain = (make_optimizer(model, schedule, "dense") for model in (one, other))
    assert fused.defaults["fused"]
    for group in plain.param_groups:
        group["fused"] = False
    for _ in range(3):
        x, y = torch.randn(8, 3, 8, 8), torch.randint(0, 4, (8,))
        for model, optimizer in ((one, fused), (other, plain)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "parameter",
    [
        torch.randn(6, 4).T,
        torch.randn(4, 8)[:, :4],
        torch.randn(4, 4, dtype=torch.complex64),
        torch.randn(4, 4, device="meta"),
    ],
    ids=("transposed", "with gaps", "complex", "on another device"),
)
def test_parameters_that_one_kernel_cannot_step_over_are_not_fused(parameter: torch.Tensor) -> None:
    model = nn.Linear(4, 4)
    model.own = nn.Parameter(parameter)
    assert not make_optimizer(model, Schedule(), "dense").defaults["fused"]


class OneAgainstMany(TinyData):
    """One input says the label loudly, many others say the opposite in low voices."""

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        x = torch.full((batch_size, 64), 0.1).index_fill(1, torch.tensor([0]), -10.0)
        return iter([(x, torch.zeros(batch_size, dtype=torch.long))] * self.train_steps(batch_size))


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.kind)
def test_retraining_of_tied_weights_goes_downhill(settings: OptimizerSettings) -> None:
    """Adam makes the steps of all weights equally large; tied only after them, weights would follow the many."""
    model = nn.Linear(64, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.05], [-0.05]]).expand(2, 64))
    schedule = Schedule(optimizer=settings, retrain_epochs=1, retrain_rate={"peak": 1e-3}, batch_size=16)
    rule = Rule(targets="all", constraint={"kind": "levels", "bits": 1, "per": "channel"})
    shaper = Shaper(model, Recipe(rules=[rule], schedule=schedule))
    shaper.harden()
    trainer = Trainer(model, OneAgainstMany(), schedule)
    before = trainer.fixed_loss()
    trainer.epoch(Span("retrain", 0, 0), make_optimizer(model, schedule, "retrain"), shaper, Silent())
    assert trainer.fixed_loss() < before - 1e-3
    assert [len(row.unique()) for row in model.weight] == [1, 1]
