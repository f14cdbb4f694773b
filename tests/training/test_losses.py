"""Losses inside `compress`: what a recipe says is what is learned, the old way to say it still holds, runs resume."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import TinyData, TinyNet, tiny_net, tiny_recipe
from torch import Tensor, nn
from torch.nn import functional

from openwork.errors import ModelError, RecipeError, TrainingError
from openwork.losses.feature import Feature
from openwork.losses.hard import Hard
from openwork.losses.labels import Labels
from openwork.losses.self_supervised import SelfSupervised
from openwork.losses.soft import Soft
from openwork.recipes.recipe import Recipe
from openwork.recipes.schedule import Distillation, Schedule
from openwork.recipes.steps import Ladder
from openwork.training.compress import compress
from openwork.training.objective import Objective, heard
from openwork.training.progress import Silent
from openwork.training.result import Result


def recipe(**changes: Any) -> Recipe:
    base = tiny_recipe()
    fields = {**base.schedule.model_dump(), "dense_epochs": 1, "shape_epochs": 2, "retrain_epochs": 2, **changes}
    return base.model_copy(update={"schedule": Schedule.model_validate(fields)})


MIXED = (Labels(weight=0.5), Soft(weight=0.5), Hard(weight=0.1), SelfSupervised(weight=0.1))
FEATURES = (Labels(), Feature(layers=("conv1", "bn2"), weight=2.0, by_loss=True))


def run(found: Recipe, folder: Path | None = None, progress: Silent | None = None) -> Result:
    return compress(tiny_net(), found, TinyData(), folder, threads=1, progress=progress)


def weights(result: Result) -> bytes:
    return b"".join(t.numpy(force=True).tobytes() for t in result.model.state_dict().values())


def test_distillation_is_short_for_two_losses_bit_for_bit() -> None:
    short = recipe(distillation={"weight": 0.3, "temperature": 3.0})
    long = recipe(distillation=None, losses=(Labels(weight=0.7), Soft(weight=0.3, temperature=3.0)))
    assert short.schedule.all_losses == long.schedule.all_losses
    first, second = run(short), run(long)
    assert weights(first) == weights(second)
    lines = [[(line["train_loss"], line.get("losses")) for line in result.history] for result in (first, second)]
    assert lines[0] == lines[1] and set(first.history[-1]["losses"]) == {"labels", "soft"}
    assert Distillation(weight=1.0) and recipe(distillation={"weight": 1.0}).schedule.all_losses == (Soft(weight=1.0),)


def test_the_sum_is_taken_as_it_always_was() -> None:
    """(1 - w) * task + w * T * T * divergence, in this order of operations, gradients too."""
    student, teacher, data = tiny_net(0).eval(), tiny_net(1).eval(), TinyData()
    x, y = next(data.train_batches(16, 0, 0))
    losses = recipe(distillation={"weight": 0.3, "temperature": 3.0}).schedule.all_losses
    loss, _ = Objective(losses, student, teacher)(x, y)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None for p in teacher.parameters())
    found = [p.grad for p in student.parameters()]
    student.zero_grad()
    logits, target = student(x), teacher(x).detach()
    divergence = functional.kl_div(
        functional.log_softmax(logits / 3.0, 1),
        functional.log_softmax(target / 3.0, 1),
        log_target=True,
        reduction="batchmean",
    )
    old = (1 - 0.3) * functional.cross_entropy(logits, y) + 0.3 * 3.0 * 3.0 * divergence
    old.backward()
    assert torch.equal(loss, old)
    assert all(torch.equal(a, p.grad) for a, p in zip(found, student.parameters(), strict=True))  # type: ignore[arg-type]


def test_every_loss_is_learned_and_its_course_is_in_the_metrics() -> None:
    result = run(recipe(distillation=None, losses=MIXED))
    assert "losses" not in result.history[0]  # dense training learns from the labels
    for line in result.history[1:]:
        found = line["losses"]
        assert list(found) == ["labels", "soft", "hard", "self_supervised"]
        total = 0.5 * found["labels"] + 0.5 * 9 * found["soft"] + 0.1 * found["hard"] + 0.1 * found["self_supervised"]
        assert line["train_loss"] == pytest.approx(total, rel=1e-5)
    assert weights(result) != weights(run(recipe(distillation=None)))


def test_layers_are_weighed_by_their_loss_in_shaping() -> None:
    result = run(recipe(distillation=None, losses=FEATURES))
    shaped, last = result.history[2]["losses"], result.history[-1]["losses"]
    a, b = shaped["feature.conv1"], shaped["feature.bn2"]
    assert result.history[1]["losses"]["feature"] == pytest.approx(
        result.history[1]["losses"]["feature.conv1"] + result.history[1]["losses"]["feature.bn2"], rel=1e-5
    )
    shares = 2 * a / (a + b), 2 * b / (a + b)
    assert last["feature"] == pytest.approx(
        shares[0] * last["feature.conv1"] + shares[1] * last["feature.bn2"], rel=1e-5
    )
    assert not any(m._forward_hooks for m in result.model.modules())


class StopAt(Silent):
    def __init__(self, batch: int) -> None:
        self.left = batch

    def batch_done(self, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("losses", "rates"), [(MIXED, ()), (FEATURES, ()), (FEATURES, (2,))], ids=["mixed", "features", "features in steps"]
)
def test_a_run_resumes_to_the_same_weights_from_every_epoch(
    losses: tuple[Any, ...], rates: tuple[float, ...], tmp_path: Path
) -> None:
    found = recipe(distillation=None, losses=losses)
    found = found.model_copy(update={"steps": Ladder(rates=rates).steps() if rates else ()})
    whole = run(found)
    for _ in range(len(whole.history) - 1):
        with pytest.raises(KeyboardInterrupt):
            run(found, tmp_path, StopAt(7))
    again = run(found, tmp_path)
    assert weights(again) == weights(whole) and again.hardened == whole.hardened
    assert [line.get("losses") for line in again.history] == [line.get("losses") for line in whole.history]


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its recipe lacks fields that recipes have had since."""
    found = recipe()
    with pytest.raises(KeyboardInterrupt):
        run(found, tmp_path, StopAt(7))
    environment = json.loads((tmp_path / "environment.json").read_text())
    del environment["start"]["recipe"]["schedule"]["losses"]
    (tmp_path / "environment.json").write_text(json.dumps(environment))
    assert weights(run(found, tmp_path)) == weights(run(found))


def test_recipes_say_losses_in_yaml() -> None:
    text = """
        rules: [{targets: all, constraint: {kind: block, shape: [4, 1], sparsity: 0.5}}]
        schedule:
          losses:
            - {kind: labels, weight: 0.5}
            - {kind: feature, layers: conv1, weight: 5, compare: attention}
    """
    found = Recipe.parse(text)
    assert found.schedule.losses == (Labels(weight=0.5), Feature(layers=("conv1",), weight=5.0, compare="attention"))
    assert Recipe.parse(found.dump()) == found


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("{losses: [{kind: sotf}]}", r"schedule\.losses\[0\]: unknown loss 'sotf'; did you mean soft\?"),
        ("{losses: [{kind: soft, weight: 0}]}", r"schedule\.losses\[0\]\.weight: 0: input should be greater than 0$"),
        ("{losses: [{kind: soft}], distillation: {}}", "losses and distillation both say what is learned; write"),
        ("{losses: [{kind: soft}], label_smoothing: 0.1}", "set it in the loss of kind labels"),
    ],
)
def test_mistakes_in_a_recipe_are_one_line(schedule: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as caught:
        Recipe.parse("rules: [{targets: all, constraint: {kind: filter, sparsity: 0.5}}]\nschedule: " + schedule)
    assert "\n" not in str(caught.value)


def test_layers_that_are_not_there_stop_before_anything_is_trained(tmp_path: Path) -> None:
    found = recipe(distillation=None, losses=(Labels(), Feature(layers=("conv1", "conv9"))))
    with pytest.raises(RecipeError, match=r"^schedule\.losses\[1\]\.layers: unknown layer 'conv9'; did you mean conv"):
        run(found, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_loss_without_its_teacher_or_its_layer_says_so() -> None:
    with pytest.raises(TrainingError, match="loss 'soft' learns from a teacher and there is none"):
        Objective((Labels(), Soft()), tiny_net())

    class Idle(TinyNet):
        def __init__(self) -> None:
            super().__init__()
            self.idle, self.gru = nn.Linear(2, 2), nn.GRU(12, 12, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            self.gru(x.flatten(1)[:, None, :12])
            return super().forward(x)

    model, (x, y) = Idle(), next(TinyData().train_batches(4, 0, 0))
    with pytest.raises(ModelError, match="layer 'idle' was not run"):
        Objective((Feature(layers="idle"),), model, model)(x, y)
    with pytest.raises(ModelError, match="layer 'gru' gives a tuple, not a tensor"):
        Objective((Feature(layers="gru"),), model, model)(x, y)
    assert not any(m._forward_hooks for m in model.modules())


def test_layers_are_heard_only_inside() -> None:
    model, (x, _) = tiny_net(), next(TinyData().train_batches(4, 0, 0))
    with heard(model, ("conv1",)) as found:
        model(x)
    before = found["conv1"]
    model(x + 1)
    assert found["conv1"] is before and before.shape == (4, 8, 6, 6)
