"""`compress` from the user's seat: what it returns, what it writes, what it refuses, and what it leaves alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_task import TinyData, TinyNet, tiny_net, tiny_recipe
from torch import nn

from openwork.constraints.block import Block
from openwork.data.base import Data
from openwork.errors import DataError, ModelError, RecipeError
from openwork.recipes.recipe import Recipe, Rule
from openwork.recipes.schedule import Rate, Schedule
from openwork.training.attempts import attempts
from openwork.training.compress import compress
from openwork.training.fit import Trainer
from openwork.training.progress import Silent
from openwork.training.shaper import Shaper


class Log(Silent):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def epoch_started(self, phase: str, epoch: int, epochs: int, batches: int) -> None:
        self.events.append((phase, epoch, epochs, batches))

    def batch_done(self, loss: float) -> None:
        self.events.append("batch")

    def epoch_ended(self, metrics: dict[str, Any]) -> None:
        self.events.append(metrics)


def with_schedule(recipe: Recipe, **changes: Any) -> Recipe:
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=changes)})


def accuracy(model: nn.Module) -> float:
    x, y = next(iter(TinyData().test_batches(64)))
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())


def test_the_whole_way_learns_prunes_and_writes_what_the_documentation_says(tmp_path: Path) -> None:
    log, model = Log(), tiny_net()
    recipe = with_schedule(tiny_recipe(), dense_epochs=6, shape_epochs=6, retrain_epochs=12)
    result = compress(model, recipe, TinyData(), tmp_path / "run", progress=log, model_name="tiny", command="test it")

    assert result.model is model and accuracy(model) == pytest.approx(result.accuracy)
    assert result.dense_accuracy > 0.9 and result.accuracy > 0.8
    assert 0.70 < result.sparsity < 0.80
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert result.weights == sum(w.numel() for w in weights)
    assert result.nonzero == sum(int((w != 0).sum()) for w in weights)
    assert [layer.violations for layer in result.layers] == [0, 0, 0, 0]
    assert result.layers[2].constraint == "Block(sparsity=0.75, shape=(4, 1)), padded"

    content = json.loads((tmp_path / "run" / "result.json").read_text())
    assert content == result.to_dict()
    assert set(content) == {"model", "recipe", "data", "dense", "hardened", "final", "layers", "seconds", "command"}
    assert set(content["hardened"]) == {"test_accuracy", "validation_accuracy"}
    assert content["model"] == "tiny" and content["recipe"] == "admm" and content["command"] == "test it"
    assert content["layers"][0]["shape"] == [8, 1, 3, 3]
    assert set(content["final"]) == {"test_accuracy", "sparsity", "weights", "nonzero"}

    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in model.state_dict().items())
    TinyNet().load_state_dict(saved)
    assert Recipe.load(tmp_path / "run" / "recipe.yaml") == recipe
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert (
        environment["seed"] == 0
        and environment["threads"] == 1
        and environment["versions"]["torch"] == torch.__version__
    )

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["dense"] * 6 + ["shape"] * 6 + ["retrain"] * 12
    common = {"epoch", "phase", "seconds", "train_loss", "learning_rate", "validation_accuracy"}
    assert set(lines[0]) == common
    assert set(lines[6]) == common | {"losses", "primal_residual", "dual_residual", "rho", "sparsity"}
    assert set(lines[-1]) == common | {"losses", "sparsity"} and set(lines[-1]["losses"]) == {"labels", "soft"}
    assert lines[-1]["sparsity"] == result.sparsity

    starts = [e for e in log.events if isinstance(e, tuple)]
    assert starts[0] == ("dense", 0, 24, 6) and starts[-1] == ("retrain", 23, 24, 6)
    assert [e for e in log.events if isinstance(e, dict)] == lines
    assert log.events.count("batch") == 24 * 6


def test_model_threads_and_random_state_are_left_as_they_were() -> None:
    model = tiny_net().train()
    torch.set_num_threads(2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recipe = with_schedule(tiny_recipe(), dense_epochs=1, shape_epochs=1, retrain_epochs=1)
    compress(model, recipe, TinyData(), threads=1)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 2 and model.training
    assert all(p.is_contiguous() and p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("phases", [(0, 0, 0), (0, 2, 0), (1, 0, 1), (0, 0, 2)])
def test_any_phase_may_be_left_out(phases: tuple[int, int, int]) -> None:
    dense, shape, retrain = phases
    recipe = with_schedule(tiny_recipe(), dense_epochs=dense, shape_epochs=shape, retrain_epochs=retrain)
    model = tiny_net()
    before = accuracy(model)
    result = compress(model, recipe, TinyData())
    assert [layer.violations for layer in result.layers] == [0] * 4 and len(result.history) == sum(phases)
    if not dense:
        assert result.dense_accuracy == pytest.approx(before)
    if sum(phases) == 0:
        fresh = tiny_net()
        for name, module in fresh.named_modules():
            if name == "conv1":
                wanted = Block(shape=(4, 1), sparsity=0.75).project(module.weight)  # type: ignore[arg-type]
                assert torch.equal(model.conv1.weight, wanted)


def test_layers_that_a_rule_skips_are_reported() -> None:
    recipe = Recipe(
        rules=[Rule(targets="all", constraint=Block(shape=(4, 1), sparsity=0.5), on_misfit="skip")],
        schedule=Schedule(shape_epochs=0, retrain_epochs=0),
    )
    fc1 = compress(tiny_net(), recipe, TinyData()).layers[2]
    assert fc1.constraint is None and fc1.sparsity == 0.0
    assert "out = 18 of weight 18x12 is not a multiple of 4" in fc1.note


def test_mistakes_stop_before_anything_is_written(tmp_path: Path) -> None:
    model = tiny_net()
    with torch.no_grad():
        model.fc1.weight[0, 0] = float("inf")
    with pytest.raises(ModelError, match="layer 'fc1' has 1 NaN or infinite weights of 216"):
        compress(model, tiny_recipe(), TinyData(), tmp_path / "run")
    model = tiny_net()
    model.bn2.running_var[3] = float("nan")
    with pytest.raises(ModelError, match=r"'bn2\.running_var' holds NaN"):
        compress(model, tiny_recipe(), TinyData(), tmp_path / "run")
    with pytest.raises(RecipeError, match="unknown recipe 'nothing'"):
        compress(tiny_net(), "nothing", TinyData(), tmp_path / "run")
    with pytest.raises(RecipeError, match="'fc9' matches no convolution, linear, recurrent or attention layer"):
        recipe = Recipe(rules=[Rule(targets="fc9", constraint=Block(shape=(4, 1), sparsity=0.5))])
        compress(tiny_net(), recipe, TinyData(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_without_a_training_batch_is_named() -> None:
    class Empty(TinyData):
        def train_batches(self, batch_size: int, seed: int, epoch: int) -> Any:
            return iter(())

    with pytest.raises(DataError, match="tiny yields no training batch of 16"):
        compress(tiny_net(), tiny_recipe(), Empty())

    class Untested(TinyData):
        def test_batches(self, batch_size: int) -> Any:
            return iter(())

    with pytest.raises(DataError, match="tiny has no test examples"):
        compress(tiny_net(), tiny_recipe(), Untested())


def test_without_validation_the_metrics_have_none() -> None:
    class NoValidation(TinyData):
        def validation_batches(self, batch_size: int) -> Any:
            return iter(())

    recipe = with_schedule(tiny_recipe(), dense_epochs=0, shape_epochs=1, retrain_epochs=0)
    assert "validation_accuracy" not in compress(tiny_net(), recipe, NoValidation()).history[0]


def test_the_accuracy_right_after_the_cut_is_that_of_the_projected_weights() -> None:
    recipe = with_schedule(tiny_recipe(), dense_epochs=6, norm_batches=0)
    cut = compress(tiny_net(), with_schedule(recipe, retrain_epochs=0), TinyData())
    assert cut.hardened["test_accuracy"] == cut.accuracy
    whole = compress(tiny_net(), recipe, TinyData())
    assert whole.hardened == cut.hardened and set(whole.hardened) == {"test_accuracy", "validation_accuracy"}


def test_updates_are_spread_over_an_epoch_and_end_with_it() -> None:
    data: Data = TinyData()
    trainer = Trainer(tiny_net(), data, Schedule(batch_size=16, updates_per_epoch=4))  # 6 steps
    due = [steps for steps in range(1, 7) if trainer._update_is_due(steps)]
    assert len(due) == 4 and due[-1] == 6


def test_rates_follow_the_recipe_through_the_phases() -> None:
    recipe = with_schedule(
        tiny_recipe(),
        dense_epochs=1,
        shape_epochs=2,
        retrain_epochs=2,
        dense_rate=Rate(peak=0.3),
        shape_rate=Rate(peak=0.02),
    )
    history = compress(tiny_net(), recipe, TinyData()).history
    assert [h["learning_rate"] for h in history[:3]] == [0.3, 0.02, 0.02]
    assert history[3]["learning_rate"] > history[4]["learning_rate"] > 0


def test_bfloat16_keeps_weights_and_updates_in_float32() -> None:
    seen: set[torch.dtype] = set()

    class Spy(TinyNet):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = super().forward(x)
            seen.add(y.dtype)
            return y

    torch.manual_seed(0)
    recipe = with_schedule(tiny_recipe("gradual"), shape_epochs=1, retrain_epochs=0)
    model = Spy()
    compress(model, recipe, TinyData())
    assert seen == {torch.bfloat16, torch.float32}  # training steps; measurements
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_one_shot_pruning_cuts_before_the_first_step() -> None:
    result = compress(tiny_net(), tiny_recipe("one-shot"), TinyData())
    assert all(h["sparsity"] == pytest.approx(result.sparsity) for h in result.history)


def test_gradual_pruning_tightens_with_each_epoch() -> None:
    sparsity = [h["sparsity"] for h in compress(tiny_net(), tiny_recipe("gradual"), TinyData()).history]
    assert sparsity[0] < sparsity[1] and sparsity[1:] == sorted(sparsity[1:])


def test_spans_number_epochs_of_the_run_and_of_the_phase() -> None:
    (only,) = attempts([Schedule(dense_epochs=1, shape_epochs=2, retrain_epochs=1)], 1)
    found = only.spans
    assert [(s.phase, s.epoch, s.of_phase) for s in found] == [
        ("dense", 0, 0),
        ("shape", 1, 0),
        ("shape", 2, 1),
        ("retrain", 3, 0),
    ]


def test_the_penalty_is_part_of_the_loss_that_is_trained() -> None:
    model = tiny_net()
    shaper = Shaper(model, tiny_recipe(), update_every=None)
    assert shaper.penalty().item() > 0
    shaper.penalty().backward()
    assert model.head.weight.grad is not None and model.head.bias.grad is None


def test_recalibration_takes_plain_averages_over_training_batches_and_nothing_else_changes() -> None:
    torch.manual_seed(0)
    model, data = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.9), nn.Flatten(), nn.Linear(64, 4)), TinyData()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    trainer = Trainer(model, data, Schedule(batch_size=16, norm_batches=3, seed=5))
    trainer.recalibrate(epoch=9)
    batches = [x for x, _ in list(data.train_batches(16, 5, 9))[:3]]
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d) and norm.momentum == 0.1 and model.training
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean() for x in batches]).mean().view(1))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var() for x in batches]).mean().view(1))
    kept = {n: t for n, t in model.state_dict().items() if "running" not in n and "tracked" not in n}
    assert all(torch.equal(t, before[n]) for n, t in kept.items())


def test_no_recalibration_unless_asked() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1))
    Trainer(model, TinyData(), Schedule(batch_size=16)).recalibrate(epoch=0)
    assert model[0].num_batches_tracked == 0
