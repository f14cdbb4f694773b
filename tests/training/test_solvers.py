"""Solvers in training: what they are handed, what holds after a step, and losses that grow without limit."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_task import TinyData, TinyNet, tiny_net, tiny_recipe
from torch import Tensor, nn
from torch.nn import functional

from openwork.constraints.filter import Filter
from openwork.constraints.unstructured import Unstructured
from openwork.errors import TrainingError, UsageError
from openwork.recipes.recipe import Recipe, Rule
from openwork.recipes.schedule import Rate
from openwork.solvers.base import Solver
from openwork.solvers.group_lasso import GroupLasso
from openwork.solvers.reweighted import Reweighted
from openwork.solvers.slr import SLR
from openwork.training.checkpoint import Checkpoint
from openwork.training.compress import compress
from openwork.training.fit import Trainer
from openwork.training.shaper import Shaper


def recipe_of(solver: Solver, sparsity: float = 0.75) -> Recipe:
    rule = Rule(targets="all", constraint=Unstructured(sparsity=sparsity))
    return tiny_recipe().model_copy(update={"solver": solver, "rules": (rule,)})


def test_the_fixed_loss_is_the_same_at_the_same_weights_and_disturbs_nothing() -> None:
    class Restless(TinyNet):
        """Random also in evaluation mode."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0.1 * torch.rand(4)

    torch.manual_seed(3)
    model = Restless().train()
    trainer = Trainer(model, TinyData(), tiny_recipe().schedule)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = trainer.fixed_loss()
    assert torch.equal(torch.get_rng_state(), state) and model.training
    torch.rand(5)
    assert trainer.fixed_loss() == first and math.isfinite(first)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad():
        model.head.weight[0].add_(0.1)
    assert trainer.fixed_loss() != first


def test_slr_in_training_compares_losses_and_says_how_often_they_fell() -> None:
    recipe = recipe_of(SLR(rho=0.5))
    brief = recipe.schedule.model_copy(
        update={"dense_epochs": 1, "shape_epochs": 3, "retrain_epochs": 1, "updates_per_epoch": 2}
    )
    seen: list[float] = []

    class Heard(SLR):
        def update(self, weights, constraints, state, loss=None):  # type: ignore[no-untyped-def]
            seen.append(loss())
            return super().update(weights, constraints, state, loss)

    result = compress(tiny_net(), recipe.model_copy(update={"schedule": brief, "solver": Heard(rho=0.5)}), TinyData())
    assert len(seen) == 6 and all(math.isfinite(value) for value in seen)
    shaped = [line for line in result.history if line["phase"] == "shape"]
    assert [0 < line["acceptance"] <= 1 for line in shaped] == [True] * 3
    assert [set(SLR.METRICS) <= set(line) for line in shaped] == [True] * 3


def test_a_loop_of_ones_own_gives_the_loss_to_the_shaper() -> None:
    asked = []

    def loss() -> float:
        asked.append(1)
        return 1.0

    shaper = Shaper(tiny_net(), recipe_of(SLR()), update_every=2, loss=loss)
    for _ in range(4):
        shaper.step()
    assert len(asked) == 2
    shaper.update(lambda: 2.0)
    assert len(asked) == 2
    shaper.update()
    assert len(asked) == 3


def train(model: nn.Module, optimizer: torch.optim.Optimizer, shaper: Shaper, epochs: int = 1) -> None:
    for epoch in range(epochs):
        for x, y in TinyData().train_batches(16, 0, epoch):
            optimizer.zero_grad()
            (functional.cross_entropy(model(x), y) + shaper.penalty()).backward()
            optimizer.step()
            shaper.step()


def filters_at_zero(model: TinyNet) -> int:
    return int((model.conv2.weight.flatten(1) == 0).all(1).sum())


@pytest.mark.parametrize("inside", [True, False], ids=["with the hook", "by step"])
def test_proximal_steps_follow_the_optimizer_and_its_rate(inside: bool) -> None:
    rules = [Rule(targets="conv2", constraint=Filter(sparsity=0.5))]
    found = []
    for rate in (0.05, 1e-6):
        model = tiny_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        shaper = Shaper(model, Recipe(rules=rules, solver=GroupLasso(strength=0.5)), optimizer, update_every=None)
        if inside:
            with shaper:
                train(model, optimizer, shaper)
        else:
            train(model, optimizer, shaper)
        found.append(filters_at_zero(model))
    assert found[0] > 0 and found[1] == 0
    shaper.harden()
    assert filters_at_zero(model) == 6


def test_without_an_optimizer_the_rate_must_be_given() -> None:
    model = tiny_net()
    shaper = Shaper(model, recipe_of(GroupLasso(strength=0.5)), update_every=None)
    with pytest.raises(UsageError, match="give Shaper the optimizer, or step"):
        shaper.step()
    shaper.step(rate=0.05)
    assert filters_at_zero(model) == 0 and bool((model.conv2.weight == 0).any())
    shaper.harden()
    shaper.step()


def test_group_lasso_in_compress_uses_the_rate_of_the_schedule() -> None:
    recipe = recipe_of(GroupLasso(strength=0.05))
    brief = recipe.schedule.model_copy(update={"shape_epochs": 2, "retrain_epochs": 0, "dense_epochs": 0})
    shaped = compress(tiny_net(), recipe.model_copy(update={"schedule": brief}), TinyData()).history
    assert 0 < shaped[0]["ratio"] < shaped[1]["ratio"]
    slow = brief.model_copy(update={"shape_rate": Rate(peak=1e-7)})
    assert compress(tiny_net(), recipe.model_copy(update={"schedule": slow}), TinyData()).history[1]["ratio"] == 0


@pytest.mark.parametrize(("solver", "field"), [(Reweighted(), "strength"), (SLR(), "rho")], ids=["reweighted", "slr"])
def test_a_penalty_that_is_not_finite_names_the_solver_and_the_remedy(solver: Solver, field: str) -> None:
    model = tiny_net()
    shaper = Shaper(model, recipe_of(solver))
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("nan")
    words = rf"the penalty of {solver.kind()} is nan; lower the learning rate or solver\.{field}"
    with pytest.raises(TrainingError, match=words):
        shaper.penalty()
    with pytest.raises(TrainingError, match=rf"layer 'fc1' holds NaN or infinite weights; lower .* solver\.{field}"):
        shaper.update()


class Steep(TinyData):
    """Inputs for which the loss of a linear model is finite and absurd, from one epoch on."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.from_epoch = epoch

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in super().train_batches(batch_size, seed, epoch):
            yield x * (1e4 if epoch >= self.from_epoch else 1), y


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


def still() -> Recipe:
    """Learning rates so small that the loss is that of the data alone."""
    recipe = tiny_recipe()
    slow = {f"{phase}_rate": Rate(peak=1e-12) for phase in ("dense", "shape", "retrain")}
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=slow)})


def test_a_loss_that_has_exploded_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    model = linear()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    words = (
        r"the mean loss of epoch 3 \(shape\) is .*, more than 10 times that of .*; lower "
        r"schedule\.shape_rate\.peak or solver\.rho \(the last checkpoint is kept\)"
    )
    with pytest.raises(TrainingError, match=words):
        compress(model, still(), Steep(3), tmp_path, threads=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    saved = Checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert saved.epochs_done == 3 and len(saved.history) == 3
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_in_the_first_epoch_a_loss_is_held_against_guessing() -> None:
    with pytest.raises(TrainingError, match=r"epoch 0 \(dense\) .* that of guessing, 1.39; lower schedule\.dense_rate"):
        compress(linear(), still(), Steep(0), threads=1)


def test_of_unknown_classes_there_may_be_many() -> None:
    """The loss of a network for a thousand classes at its start is no explosion."""

    class Unnamed(Steep):
        classes = ()

    with pytest.raises(TrainingError, match=r"that of guessing, 13\.8"):
        compress(linear(), still(), Unnamed(0), threads=1)
