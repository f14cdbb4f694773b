"""`Shaper` in a loop of the user's own: masks hold whatever the optimizer does, and nothing is left behind."""

import contextlib
import subprocess
import sys
from copy import deepcopy
from typing import Any

import pytest
import torch
from tiny_task import TinyData, TinyNet, tiny_net, tiny_recipe
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune

from openwork.constraints.block import Block
from openwork.constraints.unstructured import Unstructured
from openwork.errors import RunError, TrainingError, UsageError
from openwork.recipes.recipe import Recipe, Rule
from openwork.solvers.admm import ADMM
from openwork.solvers.group_lasso import GroupLasso
from openwork.solvers.magnitude import Magnitude
from openwork.solvers.reweighted import Reweighted
from openwork.solvers.slr import SLR
from openwork.training.shaper import Shaper, strip

OPTIMIZERS: dict[str, Any] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, shaper: Shaper | None, epochs: int, step: bool = True
) -> None:
    model.train()
    for epoch in range(epochs):
        for x, y in TinyData().train_batches(16, 0, epoch):
            loss = functional.cross_entropy(model(x), y)
            if shaper is not None:
                loss = loss + shaper.penalty()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if shaper is not None and step:
                shaper.step()


def constrained(shaper: Shaper) -> list[tuple[torch.Tensor, Any]]:
    return [(m.weight, m.constraint) for m in shaper.matches if m.constraint is not None]


SLOPE = torch.full((1, 64), 0.1).index_fill(1, torch.tensor([0]), -10.0)
"""Of one weight against many: an optimizer that makes all steps equally large, and ties them only then, goes uphill."""


def binary(make: Any) -> tuple[nn.Linear, torch.optim.Optimizer, Shaper]:
    """64 weights of one value, and a shaper that ties them from `harden()` on."""
    model = nn.Linear(64, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.5)
    optimizer = make(model.parameters())
    recipe = Recipe(rules=[Rule(targets="all", constraint={"kind": "levels", "bits": 1})])
    return model, optimizer, Shaper(model, recipe, optimizer)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("loop", ["hooks", "by hand", "closure", "closure by name"])
def test_tied_weights_go_where_their_gradients_together_point(make: Any, loop: str) -> None:
    model, optimizer, shaper = binary(make)
    shaper.harden()

    def gradients() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (model.weight * SLOPE).sum()
        loss.backward()
        return loss

    with contextlib.nullcontext() if loop == "by hand" else shaper:
        for _ in range(3):
            if loop == "closure":
                assert optimizer.step(gradients) is not None
            elif loop == "closure by name":
                assert optimizer.step(closure=gradients) is not None
            else:
                gradients()
                if loop == "by hand":
                    shaper.tie()
                optimizer.step()
            shaper.step()
    assert float((model.weight.detach() * SLOPE).sum()) < float(0.5 * SLOPE.sum()) - 1e-4
    assert len(model.weight.unique()) == 1


class Scaled(torch.optim.SGD):
    """Takes another argument before the closure."""

    def step(self, scale: float = 1.0, closure: Any = None) -> Any:  # type: ignore[override]
        for group in self.param_groups:
            group["lr"] = 0.01 * scale
        return super().step(closure)


class Named(torch.optim.SGD):
    """Takes its closure by name only."""

    def step(self, *, closure: Any = None) -> Any:  # type: ignore[override]
        return super().step(closure)


@pytest.mark.parametrize(("make", "arguments", "rate"), [(Scaled, (2.0,), 0.02), (Scaled, (), 0.01), (Named, (), 0.05)])
def test_optimizers_get_the_arguments_that_they_were_given(
    make: Any, arguments: tuple[float, ...], rate: float
) -> None:
    _, optimizer, shaper = binary(lambda p: make(p, lr=0.05))
    shaper.harden()
    called: list[int] = []
    with shaper:
        optimizer.step(*arguments, closure=lambda: called.append(1))
    assert called == [1] and optimizer.param_groups[0]["lr"] == rate


def test_of_weights_tied_afterwards_adam_takes_the_loss_uphill() -> None:
    """Shows that the test above can fail."""
    model, optimizer, shaper = binary(OPTIMIZERS["adam"])
    shaper.harden()
    (model.weight * SLOPE).sum().backward()
    optimizer.step()
    shaper.step()
    assert float((model.weight.detach() * SLOPE).sum()) > float(0.5 * SLOPE.sum())


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
@pytest.mark.parametrize("step", [True, False], ids=["step", "hook only"])
def test_zeros_hold_through_every_optimizer(make: Any, step: bool) -> None:
    model = tiny_net()
    optimizer = make(model.parameters())
    # Buffers are full of stale momentum before the cut, the case in which masking gradients alone fails.
    with Shaper(model, tiny_recipe(), optimizer, update_every=6) as shaper:
        train(model, optimizer, shaper, 2)
        shaper.harden()
        masks = [w != 0 for w, _ in constrained(shaper)]
        kept = [w.detach().clone() for w, _ in constrained(shaper)]
        train(model, optimizer, shaper, 2, step=step)
    for (w, constraint), mask, old in zip(constrained(shaper), masks, kept, strict=True):
        assert constraint.violations(w) == 0
        zeros = w.detach()[~mask]
        assert torch.equal(zeros, torch.zeros_like(zeros)) and not torch.signbit(zeros).any()
        assert not torch.equal(w[mask], old[mask]), "what was kept must go on learning"


class Listener(nn.Module):
    """A recurrent layer and attention over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        x, _ = next(iter(TinyData().train_batches(1, 0, 0)))
        self.gru = nn.GRU(x[0, 0].shape[1], 16, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.gru(x.mean(1))
        logits: torch.Tensor = self.head(self.attention(y, y, y)[0].mean(1))
        return logits


def test_recurrent_layers_and_attention_are_pruned_too() -> None:
    torch.manual_seed(0)
    model = Listener()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rows, blocks = Unstructured(sparsity=0.75), Block(shape=(4, 1), sparsity=0.5)
    rules = [Rule(targets="recurrent", constraint=rows), Rule(targets="attention.in_proj_weight", constraint=blocks)]
    with Shaper(model, Recipe(rules=rules), optimizer, update_every=4) as shaper:
        train(model, optimizer, shaper, 2)
        shaper.harden()
        train(model, optimizer, shaper, 1)
    for weight, constraint in constrained(shaper):
        assert constraint.violations(weight) == 0
    assert int((model.gru.weight_hh_l0 == 0).sum()) == 0.75 * model.gru.weight_hh_l0.numel()
    assert int((model.attention.in_proj_weight == 0).sum()) == 0.5 * model.attention.in_proj_weight.numel()
    assert (model.head.weight != 0).all() and (model.attention.out_proj.weight != 0).all()


def test_without_a_shaper_momentum_revives_zeros() -> None:
    """Shows that the test above can fail."""
    model = tiny_net()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    shaper = Shaper(model, tiny_recipe(), optimizer)
    train(model, optimizer, shaper, 1)
    shaper.harden()
    train(model, optimizer, None, 1)
    assert any(constraint.violations(w) > 0 for w, constraint in constrained(shaper))


def test_biases_and_batch_norm_stay_dense() -> None:
    model = tiny_net()
    optimizer = OPTIMIZERS["momentum"](model.parameters())
    with Shaper(model, tiny_recipe(), optimizer, update_every=6) as shaper:
        train(model, optimizer, shaper, 2)
        shaper.harden()
    weights = {id(w) for w, _ in constrained(shaper)}
    others = [p for p in model.parameters() if id(p) not in weights]
    assert len(others) == 7 and all((p != 0).any() for p in others)
    assert len(weights) == 4


def test_shaping_brings_weights_nearer_to_their_sets_than_training_alone() -> None:
    def distance(with_penalty: bool) -> float:
        model = tiny_net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        recipe = tiny_recipe().model_copy(update={"solver": ADMM(rho=2.0, growth=1.1)})
        shaper = Shaper(model, recipe, optimizer, update_every=12)
        train(model, optimizer, shaper if with_penalty else None, 20)
        gaps = [((w - c.project(w)).norm() / w.norm()).item() for w, c in constrained(shaper)]
        return sum(gaps) / len(gaps)

    assert distance(True) < 0.4 * distance(False)


def test_the_solver_is_updated_every_so_many_steps() -> None:
    model = tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recipe = tiny_recipe().model_copy(update={"solver": ADMM(rho=1.0, growth=2.0)})
    shaper = Shaper(model, recipe, optimizer, update_every=4)
    train(model, optimizer, shaper, 2)  # 12 steps
    assert shaper.metrics()["rho"] == 8.0
    by_hand = Shaper(model, recipe, optimizer, update_every=None)
    train(model, optimizer, by_hand, 2)
    assert by_hand.metrics()["rho"] == 1.0
    by_hand.update()
    assert by_hand.metrics()["rho"] == 2.0
    by_hand.harden()
    assert float(by_hand.penalty()) == 0.0
    with pytest.raises(UsageError, match=r"update\(\) after harden\(\)"):
        by_hand.update()


@pytest.mark.parametrize(
    "solver",
    [ADMM(rho=0.1), Magnitude(gradual=True, ramp=5), SLR(), Reweighted(power=1), GroupLasso(strength=0.01)],
    ids=lambda solver: solver.kind(),
)
@pytest.mark.parametrize("hardened", [False, True])
def test_a_saved_state_continues_exactly(solver: Any, hardened: bool) -> None:
    recipe = tiny_recipe().model_copy(update={"solver": solver})

    def start(model: TinyNet) -> tuple[torch.optim.Optimizer, Shaper]:
        optimizer = OPTIMIZERS["momentum"](model.parameters())
        return optimizer, Shaper(model, recipe, optimizer, update_every=6)

    model = tiny_net()
    optimizer, shaper = start(model)
    train(model, optimizer, shaper, 1)
    if hardened:
        shaper.harden()
    copy = tiny_net(1)
    copied_optimizer, copied = start(copy)
    copied.load_state_dict(shaper.state_dict())
    copy.load_state_dict(model.state_dict())
    copied_optimizer.load_state_dict(deepcopy(optimizer.state_dict()))  # torch would share the buffers
    torch.manual_seed(0)
    train(model, optimizer, shaper, 2)
    torch.manual_seed(0)
    train(copy, copied_optimizer, copied, 2)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), copy.state_dict().values(), strict=True))
    assert copied.phase == shaper.phase and copied.metrics() == shaper.metrics()


def test_a_state_of_other_layers_is_refused() -> None:
    shaper = Shaper(tiny_net(), tiny_recipe())
    fewer = Recipe(rules=[Rule(targets="head", constraint=Unstructured(sparsity=0.5))])
    with pytest.raises(RunError, match=r"of layers \['conv1', .*this recipe and model have \['head'\]"):
        Shaper(tiny_net(), fewer).load_state_dict(shaper.state_dict())


def test_hooks_end_with_the_block_and_two_shapers_do_not_fight() -> None:
    model = tiny_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    plain = set(vars(model))
    with Shaper(model, tiny_recipe(), optimizer) as shaper:
        with pytest.raises(UsageError, match="another Shaper is at work"), Shaper(model, tiny_recipe(), optimizer):
            pass
        assert optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_post_hooks and set(vars(model)) == plain
    with shaper:
        strip(model)
        assert not optimizer._optimizer_step_post_hooks and set(vars(model)) == plain


def test_strip_bakes_parametrizations_and_pruning_masks() -> None:
    class Double(nn.Module):
        def forward(self, w: torch.Tensor) -> torch.Tensor:
            return 2 * w

    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    parametrize.register_parametrization(model[0], "weight", Double())
    prune.l1_unstructured(model[1], "weight", 0.5)
    x = torch.randn(2, 4)
    wanted = model(x)
    names = set(strip(model).state_dict())
    assert names == {"0.weight", "0.bias", "1.weight", "1.bias"}
    assert torch.equal(model(x), wanted) and int((model[1].weight == 0).sum()) == 8


def test_weights_that_became_nan_cannot_be_hardened() -> None:
    model = tiny_net()
    shaper = Shaper(model, tiny_recipe())
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="layer 'fc1' holds NaN"):
        shaper.harden()


def test_a_hardened_shaper_holds_masks_only() -> None:
    shaper = Shaper(tiny_net(), tiny_recipe())
    assert len(shaper.state_dict()["solver"]) == 8 and not shaper.state_dict()["masks"]
    shaper.harden()
    assert not shaper.state_dict()["solver"] and len(shaper.state_dict()["masks"]) == 4


def test_a_recipe_whose_layers_were_all_skipped_trains_on_in_peace() -> None:
    model = nn.Linear(3, 3)
    rule = Rule(targets="all", constraint=Block(shape=(4, 1), sparsity=0.5), on_misfit="skip")
    shaper = Shaper(model, Recipe(rules=[rule]), update_every=1)
    (model(torch.randn(2, 3)).sum() + shaper.penalty()).backward()
    shaper.step()
    shaper.harden()
    assert shaper.penalty().item() == 0.0 and shaper.sparsity() == 0.0
    assert "out = 3 of weight 3x3" in shaper.matches[0].note


def test_update_every_must_be_positive() -> None:
    with pytest.raises(UsageError, match="update_every=0"):
        Shaper(tiny_net(), tiny_recipe(), update_every=0)


def test_public_names_lead_to_the_documented_loop() -> None:
    """The loop of the documentation, word for word, in a fresh process."""
    code = """
import torch, openwork as ow
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
recipe = ow.Recipe(rules=[ow.Rule(targets="linear", constraint=ow.Block(shape=(4, 1), sparsity=0.5)),
                          ow.Rule(targets="2", constraint=ow.Unstructured(sparsity=0.75))],
                   solver=ow.ADMM(rho=0.1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
loader = [(torch.randn(8, 8), torch.randint(0, 4, (8,))) for _ in range(10)]
criterion = torch.nn.CrossEntropyLoss()
with ow.Shaper(model, recipe, optimizer, update_every=5) as shaper:
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y) + shaper.penalty()
        loss.backward(); optimizer.step(); shaper.step()
shaper.harden()
ow.strip(model)
print([int((layer.weight != 0).sum()) for layer in (model[0], model[2])])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[64, 16]"
    assert Block(shape=(4, 1), sparsity=0.5).sparsity == 0.5
