"""Partial prunings one after the other: what is held from step to step, which models go on, and how a run resumes."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_resume import Messages, StopAt, figures, same_weights
from tiny_task import TinyData, TinyNet, tiny_net, tiny_recipe
from torch import Tensor, nn

from openwork.constraints.base import Constraint
from openwork.constraints.column import Column
from openwork.constraints.filter import Filter
from openwork.constraints.unified import Unified
from openwork.constraints.unstructured import Unstructured
from openwork.errors import DataError
from openwork.recipes.recipe import Recipe, Rule
from openwork.recipes.schedule import Rate, Schedule
from openwork.recipes.stages import stages
from openwork.solvers.admm import ADMM
from openwork.solvers.slr import SLR
from openwork.training.attempts import attempts
from openwork.training.checkpoint import Checkpoint
from openwork.training.compress import compress
from openwork.training.fit import Learned, Trainer
from openwork.training.hold import Hold
from openwork.training.progress import Silent
from openwork.training.shaper import Shaper
from openwork.training.shortlist import Candidate, Shortlist

WEIGHTS = 72 + 864 + 216 + 72
"""Of the tiny network."""


def recipe(steps: str, **changes: Any) -> Recipe:
    """Nine tenths of all weights, in steps of an epoch of shaping and one of retraining."""
    found = Recipe.parse(
        f"""
        rules: [{{targets: all, constraint: {{kind: unstructured, sparsity: 0.9}}}}]
        solver: {{kind: admm, rho: 0.1}}
        steps: {steps}
        schedule:
          dense_epochs: 2
          shape_epochs: 1
          retrain_epochs: 1
          batch_size: 16
          dense_rate: {{peak: 0.05}}
          shape_rate: {{peak: 0.02}}
          retrain_rate: {{peak: 0.05}}
          optimizer: {{momentum: 0.9, weight_decay: 0.01}}
        """
    )
    return found.model_copy(update=changes)


class Watch(Silent):
    """Remembers the zeros of every batch and the models at the end of every epoch, by looking at the model itself."""

    def __init__(self) -> None:
        self.model: nn.Module | None = None
        self.zeros: list[list[Tensor]] = []
        self.at: list[tuple[str, int]] = []
        self.place = ("", 0)

    def epoch_started(self, phase: str, epoch: int, epochs: int, batches: int) -> None:
        self.place = (phase, epoch)

    def batch_done(self, loss: float) -> None:
        assert self.model is not None
        self.zeros.append([w.detach() == 0 for w in weights(self.model)])
        self.at.append(self.place)


def weights(model: nn.Module) -> list[Tensor]:
    return [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    found, epoch = Watch(), Trainer.epoch

    def watched(self: Trainer, *arguments: Any) -> Learned:
        found.model = self.model
        return epoch(self, *arguments)

    monkeypatch.setattr(Trainer, "epoch", watched)
    return found


def test_zeros_of_a_step_hold_through_all_that_follow_and_budgets_are_met(watch: Watch) -> None:
    result = compress(tiny_net(), recipe("{rates: [2, 4]}"), TinyData(), threads=1, progress=watch)
    nonzero = [sum(int((~z).sum()) for z in zeros) for zeros in watch.zeros]
    by_epoch = [nonzero[6 * e : 6 * e + 6] for e in range(8)]  # dense twice, then (shape, retrain) three times
    for epoch, wanted in ((3, WEIGHTS / 2), (5, WEIGHTS / 4), (7, WEIGHTS / 10)):
        assert len(set(by_epoch[epoch])) == 1 and by_epoch[epoch][0] == pytest.approx(wanted, abs=2)
    # Shaping starts within the zeros of the step before and stays there, whatever momentum and weight decay do.
    for before, after in ((3, 4), (3, 5), (5, 6), (5, 7)):
        settled = watch.zeros[6 * before + 5]
        for zeros in watch.zeros[6 * after : 6 * after + 6]:
            assert all(bool((now | ~then).all()) for now, then in zip(zeros, settled, strict=True))
    assert [layer.violations for layer in result.layers] == [0] * 4
    assert [step.step for step in result.steps] == [1, 2, 3] and [step.parent for step in result.steps] == [0, 1, 2]
    assert result.steps[-1].sparsity == result.sparsity


def test_budgets_count_all_weights_not_those_that_were_left() -> None:
    """Half of all, twice, is half; 'half of what is left' would be a quarter."""
    steps = "[{sparsity: 0.5}, {sparsity: 0.5}]"
    assert compress(tiny_net(), recipe(steps), TinyData(), threads=1).nonzero == WEIGHTS / 2


@pytest.mark.parametrize("name", ["admm", "gradual", "one-shot"])
def test_a_list_of_one_step_is_the_plain_run(name: str) -> None:
    plain = compress(tiny_net(), tiny_recipe(name), TinyData(), threads=1)
    one = compress(tiny_net(), Recipe.parse(tiny_recipe(name).dump() + "\nsteps: [{}]"), TinyData(), threads=1)
    assert same_weights(one.model.state_dict(), plain.model.state_dict())
    assert figures(one.history) == figures(plain.history) and one.steps == ()


def test_each_step_starts_from_its_projection_without_multipliers(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[tuple[list[Tensor], Any]] = []

    class Spy(ADMM):
        def init(self, weights: Sequence[Tensor], constraints: Sequence[Constraint]) -> Any:
            state = super().init(weights, constraints)
            began.append(([c.project(w) for w, c in zip(weights, constraints, strict=True)], state))
            return state

    compress(tiny_net(), recipe("{count: 3}", solver=Spy(rho=0.1, growth=2.0)), TinyData(), threads=1)
    assert len(began) >= 3
    for projected, state in began:
        assert all(torch.equal(z, wanted) for z, wanted in zip(state.tensors["z"], projected, strict=True))
        assert not any(u.any() for u in state.tensors["u"]) and state.numbers["rho"] == 0.1


def test_restarts_shape_again_from_projected_weights_whose_zeros_may_come_back(watch: Watch) -> None:
    schedule = recipe("[]").schedule.model_copy(
        update={"restarts": 1, "shape_epochs": 2, "shape_rate": Rate(peak=0.02, decay="step", milestones=(0.5,))}
    )
    result = compress(tiny_net(), recipe("[]", schedule=schedule), TinyData(), threads=1, progress=watch)
    assert [line["phase"] for line in result.history] == ["dense"] * 2 + ["shape"] * 4 + ["retrain"]
    rates = [line["learning_rate"] for line in result.history[2:6]]
    assert rates == pytest.approx([0.02, 0.002, 0.02, 0.002]), "the rate begins again, too"
    zeros = [sum(int(z.sum()) for z in found) for found in watch.zeros]
    assert max(zeros[:36]) < 0.5 * WEIGHTS, "weights move freely again after the first step of an optimizer"
    assert set(zeros[36:]) == {WEIGHTS - result.nonzero}


def test_a_restart_projects_the_weights() -> None:
    model = tiny_net()
    shaper = Shaper(model, recipe("[]"), update_every=None)
    wanted = [m.constraint.project(m.weight) for m in shaper.matches if m.constraint]
    shaper.update()
    shaper.restart()
    assert all(torch.equal(w, z) for w, z in zip(weights(model), wanted, strict=True))
    assert shaper.penalty().item() == 0.0 and shaper.phase == "shape"


def test_columns_then_filters_keep_both_structures() -> None:
    steps = "[{rules: [{targets: [conv2, fc1], constraint: {kind: column, sparsity: 0.5}}]}, {}]"
    rules = (Rule(targets=("conv2", "fc1"), constraint=Filter(sparsity=0.25)),)
    result = compress(tiny_net(), recipe(steps, rules=rules), TinyData(), threads=1)
    model = result.model
    assert isinstance(model, TinyNet)
    for weight, layer in ((model.conv2.weight, result.layers[1]), (model.fc1.weight, result.layers[2])):
        columns, filters = Column(sparsity=0.5), Filter(sparsity=0.25)
        assert columns.violations(weight) == filters.violations(weight) == 0
        matrix = weight.detach().flatten(1) != 0
        rows, taps = matrix.any(1), matrix.any(0)
        assert int(taps.sum()) == columns.budget(taps.numel()) and int(rows.sum()) == filters.budget(rows.numel())
        assert layer.constraint == "Column(sparsity=0.5) and Filter(sparsity=0.25)" and layer.format == "kept"
    assert result.layers[0].constraint is None


def test_layers_of_earlier_steps_are_held_in_later_ones_that_leave_them_out() -> None:
    steps = "[{rules: [{targets: conv2, constraint: {kind: unstructured, sparsity: 0.5}}]}, {}]"
    rules = (Rule(targets="fc1", constraint=Unstructured(sparsity=0.5)),)
    result = compress(tiny_net(), recipe(steps, rules=rules), TinyData(), threads=1)
    assert [layer.sparsity for layer in result.layers] == [0, 0.5, 0.5, 0]
    assert [layer.constraint is None for layer in result.layers] == [True, False, False, True]


def test_tied_weights_stay_tied_in_later_steps() -> None:
    tied = Unified(shape=(4, 4), unified=0.5)
    text = "[{rules: [{targets: conv2, constraint: {kind: unified, shape: [4, 4], unified: 0.5}}]}, {}]"
    rules = (Rule(targets="fc1", constraint=Unstructured(sparsity=0.5)),)
    result = compress(tiny_net(), recipe(text, rules=rules), TinyData(), threads=1)
    assert isinstance(result.model, TinyNet) and tied.violations(result.model.conv2.weight) == 0
    assert [layer.violations for layer in result.layers] == [0] * 4


def levels(**fields: Any) -> str:
    """A step of levels on all layers."""
    written = ", ".join(f"{name}: {value}" for name, value in fields.items())
    return f"{{rules: [{{targets: all, constraint: {{kind: levels, {written}}}}}]}}"


def test_bits_are_taken_away_step_by_step_from_what_was_left_by_pruning(watch: Watch) -> None:
    """Half of the weights goes first and stays away; each step then has its own levels, and those before are let go."""
    steps = ", ".join(levels(bits=bits, scheme="nonzero") for bits in (8, 4, 2, 1))
    found = recipe(f"[{{sparsity: 0.5}}, {steps}]").model_copy(
        update={"rules": (Rule(targets="all", constraint=Unstructured(sparsity=0.5)),)}
    )
    result = compress(tiny_net(), found, TinyData(), threads=1, progress=watch)
    pruned = watch.zeros[6 * 3 + 5]
    for zeros in watch.zeros[6 * 4 :]:
        assert all(torch.equal(now, then) for now, then in zip(zeros, pruned, strict=True))
    for layer, weight in zip(result.layers, weights(result.model), strict=True):
        assert layer.violations == 0 and layer.sparsity == 0.5 and layer.format == "codes"
        assert len(weight.detach().abs().unique()) == 2, "zero, and one magnitude"
        assert layer.bytes is not None and layer.bytes <= -(-weight.numel() // 16) + -(-weight.numel() // 8) + 4
        assert str(layer.constraint).startswith("Unstructured(sparsity=0.5) and Levels(bits=1, ")


LEVELS = '{"kind": "levels", "bits": %d, "scheme": "nonzero"}'
BLOCKS = '{"kind": "block", "shape": [4, 1], "sparsity": %s}'
FILTERS = '{"kind": "filter", "sparsity": %s}'


def both(first: str, bits: int) -> str:
    return f'{{"kind": "and", "of": [{first}, {LEVELS % bits}]}}'


@pytest.mark.parametrize(
    ("before", "now", "left"),
    [
        (both(BLOCKS % 0.5, 4), LEVELS % 2, "Block(sparsity=0.5, shape=(4, 1)) and Levels(bits=2"),
        (both(BLOCKS % 0.5, 4), both(BLOCKS % 0.75, 2), "Block(sparsity=0.75, shape=(4, 1)) and Levels(bits=2"),
        (both(BLOCKS % 0.5, 4), both(FILTERS % 0.25, 2), "Block(sparsity=0.5, shape=(4, 1)) and Filter(sparsity=0.25)"),
        (both(f"{FILTERS % 0.25}, {BLOCKS % 0.5}", 4), LEVELS % 2, "Filter(sparsity=0.25) and Block(sparsity=0.5, "),
        (LEVELS % 4, LEVELS % 2, "Levels(bits=2"),
    ],
    ids=["levels alone", "more of the same pattern", "another pattern", "two patterns", "no pattern"],
)
def test_new_levels_take_the_place_of_levels_and_leave_the_pattern_to_be_obeyed(
    before: str, now: str, left: str, tmp_path: Path
) -> None:
    rule = "{{rules: [{{targets: all, constraint: {}, on_misfit: pad}}]}}"
    found = recipe(f"[{rule.format(before)}, {rule.format(now)}]").model_copy(
        update={"schedule": Schedule(shape_epochs=1, retrain_epochs=1, batch_size=48)}
    )
    result = compress(tiny_net(), found, TinyData(), tmp_path, threads=1)
    for layer in result.layers:
        assert layer.constraint is not None and layer.constraint.replace(", padded", "").startswith(left)
        assert layer.constraint.count("Levels") == 1 and layer.violations == 0
        assert layer.format == "codes" and layer.bytes is not None
    if "Block" in left:
        fc1 = next(layer for layer in result.layers if layer.name == "fc1")  # 18 rows, padded to 20
        assert "padded" in str(fc1.constraint) and fc1.sparsity > 0.4
    assert json.loads((tmp_path / "result.json").read_text())["layers"][0]["constraint"] == result.layers[0].constraint


def test_what_new_levels_leave_of_a_pattern_is_counted() -> None:
    """The pattern is looked at where only levels were asked for last."""
    layer = nn.Linear(8, 8)
    rule = Rule(targets="all", constraint=json.loads(both(BLOCKS % 0.5, 4)))
    first = Shaper(layer, Recipe(rules=(rule,)))
    first.harden()
    second = Shaper(layer, Recipe(rules=(Rule(targets="all", constraint=json.loads(LEVELS % 2)),)), held=first.hold)
    second.harden()
    (match,) = second.obeyed()
    assert match.constraint is not None and match.constraint.violations(layer.weight) == 0
    assert match.constraint.violations(torch.ones(8, 8)) > 0, "all blocks are there"
    wider = Shaper(
        layer, Recipe(rules=(Rule(targets="all", constraint=json.loads(both(BLOCKS % 0.25, 1))),)), held=first.hold
    )
    wider.harden()
    assert str(wider.obeyed()[0].constraint).startswith("Block(sparsity=0.5, shape=(4, 1)) and Block")


def test_the_step_of_the_solver_is_not_the_step_of_the_recipe(tmp_path: Path) -> None:
    """Both are numbers in a line of metrics.jsonl."""
    for name, steps, expected in (("one", "[{}]", [None]), ("two", "[{sparsity: 0.5}, {}]", [1, 2])):
        found = recipe(steps, solver=SLR(rho=0.5, step=0.01))
        compress(tiny_net(), found, TinyData(), tmp_path / name, threads=1)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert list(dict.fromkeys(line.get("step") for line in lines)) == expected
        assert all(("step_size" in line) == (line["phase"] == "shape") for line in lines)


def test_level_zero_prunes_nothing() -> None:
    """What lies on it in one step may move in the next: to one of two levels, here."""
    found = recipe(f"[{levels(bits=2)}, {levels(bits=1, zeros='level')}]")
    result = compress(tiny_net(), found, TinyData(), threads=1)
    assert [layer.violations for layer in result.layers] == [0] * 4 and result.sparsity == 0
    assert all(len(weight.detach().unique()) == 2 for weight in weights(result.model))


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_frozen_weights_do_not_move(kind: str, watch: Watch, tmp_path: Path) -> None:
    found = recipe("{count: 3, freeze: 0.25}")
    optimizer = found.schedule.optimizer.model_copy(update={"kind": kind, "weight_decay": 0.1, "nesterov": False})
    found = found.model_copy(update={"schedule": found.schedule.model_copy(update={"optimizer": optimizer})})
    ends: list[tuple[list[Tensor], dict[str, Any]]] = []

    class Keep(Silent):
        def epoch_ended(self, metrics: dict[str, Any]) -> None:
            assert watch.model is not None
            saved = Checkpoint.load(tmp_path / "checkpoint.safetensors")
            if metrics["phase"] == "retrain":
                assert saved.shaper is not None
                ends.append(([w.detach().clone() for w in weights(watch.model)], saved.shaper))

    compress(tiny_net(), found, TinyData(), tmp_path, threads=1, progress=Keep())
    names = ["conv1", "conv2", "fc1", "head"]
    for (now, state), (later, _) in itertools.pairwise(ends):
        for name, before, after in zip(names, now, later, strict=True):
            values = state["frozen"][name]
            frozen = values != 0
            assert int(frozen.sum()) >= round(0.25 * int((before != 0).sum()))
            assert torch.equal(before[frozen], values[frozen])
            assert before[frozen].abs().min() > 0 and bool((before[~frozen] != 0).any())
            stays = frozen & (after != 0)
            assert torch.equal(after[stays], before[stays]), f"frozen weights of {name} moved"
            assert bool(stays.any())
            free = ~frozen & (after != 0)
            if name == "conv2":  # the others are small: all that is left of them may be frozen
                assert not torch.equal(after[free], before[free]), "what is not frozen must go on learning"


def test_the_largest_share_freezes_and_stays_frozen() -> None:
    layer = nn.Linear(5, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -5.0, 3.0, 0.5, -2.0]]))
    cut = Unstructured(sparsity=0.2)
    weight = layer.weight.detach()
    hold = Hold.of(layer).cut({"": (cut, cut.project(weight), cut.mask(weight))})
    hold.apply()
    half = hold.freeze(0.5)
    assert half.frozen[""].tolist() == [[0, -5, 3, 0, 0]]
    with torch.no_grad():
        layer.weight.add_(10.0)
    half.apply()
    assert layer.weight.tolist() == [[11, -5, 3, 0, 8]]
    assert half.freeze(0.75).frozen[""].tolist() == [[11, -5, 3, 0, 0]], "what was frozen counts first"
    assert half.freeze(0.25).frozen[""].tolist() == [[0, -5, 3, 0, 0]], "and is never let go"
    assert half.within({"": torch.tensor([[True, False, True, True, True]])}).frozen[""].tolist() == [[0, 0, 3, 0, 0]]


@pytest.mark.parametrize(
    ("levels", "values"),
    [
        ("{kind: levels, bits: 1, zeros: level}", 2),
        ("{kind: levels, bits: 2}", 3),
        ("{kind: and, of: [{kind: block, shape: [4, 1], sparsity: 0.5}, {kind: levels, bits: 3, scheme: nonzero}]}", 9),
    ],
    ids=["binary", "ternary", "pruned"],
)
def test_weights_near_their_levels_freeze_there_and_all_are_on_them_in_the_end(levels: str, values: int) -> None:
    rule = f"rules: [{{targets: all, constraint: {levels}, on_misfit: pad}}]"
    found = recipe(f"[{{freeze: 0.5, {rule}}}, {{freeze: 0.75, {rule}}}, {{{rule}}}]").model_copy(
        update={"schedule": Schedule(shape_epochs=1, retrain_epochs=1, batch_size=16)}
    )
    model, held, frozen = tiny_net(), None, []
    for stage in stages(found, model):
        shaper = Shaper(model, stage.recipe, update_every=None, held=held)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        train(model, shaper, optimizer)
        shaper.update()
        shaper.harden(stage.freeze)
        resumed = Shaper(tiny_net(), stage.recipe, update_every=None, held=held and loaded(held))
        resumed.load_state_dict(shaper.state_dict())
        assert [str(m.constraint) for m in resumed.obeyed()] == [str(m.constraint) for m in shaper.obeyed()]
        held = shaper.hold
        now = {name: value.clone() for name, value in held.frozen.items()}
        for name, before in frozen[-1].items() if frozen else ():
            kept = before != 0
            assert torch.equal(now.get(name, before)[kept], before[kept]), "frozen weights do not move"
        if stage.freeze:
            for name, values_now in now.items():
                left = held.masks[name] != 0
                assert stage.freeze - 0.26 <= (values_now != 0).sum() / left.sum() <= 1
                assert len(values_now.abs().unique()) <= values // 2 + 1
            frozen.append(now)
        before = {name: held.weights[name].detach().clone() for name in now}
        train(model, shaper, optimizer)
        for name, value in before.items():
            kept, weight = now[name] != 0, held.weights[name]
            assert torch.equal(weight[kept], value[kept])
            if stage.freeze and name == "conv2":
                assert not torch.equal(weight, value), "the others go on learning"
    assert len(frozen) == 2 and all((frozen[1][n] != 0).sum() >= (frozen[0][n] != 0).sum() for n in frozen[0])
    for m in shaper.obeyed():
        assert m.constraint is not None and m.constraint.violations(m.weight) == 0
        assert len(m.weight.unique()) <= values


def train(model: nn.Module, shaper: Shaper, optimizer: torch.optim.Optimizer) -> None:
    for x, y in TinyData().train_batches(16, 0, 0):
        optimizer.zero_grad()
        (nn.functional.cross_entropy(model(x), y) + shaper.penalty()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        shaper.step()


def loaded(held: Hold) -> Hold:
    return Hold.of(tiny_net()).loaded(held.state_dict())


def candidate(step: int, parent: int, accuracy: float | None) -> Candidate:
    return Candidate(step, parent, accuracy, {}, 0.0, {}, {})


def test_the_list_grows_to_its_size_and_then_winners_replace_their_parents() -> None:
    short = Shortlist(3)
    for step, accuracies in enumerate([[0.9], [0.8], [0.7, 0.75], [0.9, 0.5, 0.6], [0.3, 0.5, 0.5]]):
        short.tried = [candidate(step, parent, accuracy) for parent, accuracy in enumerate(accuracies)]
        found = short.settle()
        assert len(short.kept) <= 3 and short.tried == [] and short.newest().step == step == found.step - 1
    # Step 4 came best from step 1's model and took its place; step 5 from step 2's, the first of two equals.
    assert [c.step for c in short.kept] == [3, 4, 2] and found.parent == 2 and found.tried == (0.3, 0.5, 0.5)


def test_a_model_below_the_floor_is_left_out_but_for_the_first() -> None:
    short = Shortlist(1)
    for step, accuracy, kept in ((0, 0.5, False), (1, 0.95, True), (2, 0.8, False)):
        short.tried = [candidate(step, 0, accuracy)]
        assert short.settle(floor=0.9).kept == kept
    assert [c.step for c in short.kept] == [1]


def test_attempts_are_known_before_the_run() -> None:
    schedule = Schedule(dense_epochs=2, shape_epochs=1, retrain_epochs=1, restarts=1)
    rest = schedule.model_copy(update={"dense_epochs": 0})
    found = attempts([schedule, rest, rest, rest], candidates=2)
    assert [(a.step, a.parent, a.last, a.end) for a in found] == [
        (0, 0, True, 5), (1, 0, True, 8), (2, 0, False, 11), (2, 1, True, 14), (3, 0, False, 17), (3, 1, True, 20)
    ]  # fmt: skip
    assert [(s.phase, s.of_phase, s.restart) for s in found[0].spans] == [
        ("dense", 0, 0), ("dense", 1, 0), ("shape", 0, 0), ("shape", 0, 1), ("retrain", 0, 0)
    ]  # fmt: skip
    assert [s.epoch for a in found for s in a.spans] == list(range(20))


def identity(self: Trainer, *_: Any) -> Learned:
    return Learned(0.0, {})


@pytest.mark.parametrize("candidates", [1, 3])
def test_a_network_that_does_not_change_visits_each_rate_exactly(
    candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "epoch", identity)
    found = recipe(
        "{increment: 3, to: 9}",
        rules=(Rule(targets="all", constraint=Unstructured(sparsity=1 - 1 / 12)),),
        candidates=candidates,
    )
    first, second = (compress(tiny_net(), found, TinyData(), threads=1) for _ in range(2))
    rates = [1 / (1 - step.sparsity) for step in first.steps]
    assert rates == pytest.approx([3, 6, 9, 12], rel=0.01)
    assert first.steps == second.steps and same_weights(first.model.state_dict(), second.model.state_dict())
    # All attempts at a step are equally good, so the first wins, and takes its parent's place once the list is full.
    assert [step.parent for step in first.steps] == ([0, 1, 2, 3] if candidates == 1 else [0, 1, 1, 1])


def told(accuracies: Sequence[float]) -> Callable[[Trainer], float]:
    """Validation accuracies one after the other, whatever the model."""
    rest = iter(accuracies)
    return lambda _: next(rest)


def test_validation_alone_chooses_and_every_listed_model_meets_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    # One call an epoch, one at the cuts of the last step and one at the end of an attempt: two epochs in each.
    best = [0.9, 0.8, 0.5, 0.7, 0.6, 0.8]  # steps 1, 2, 3 (from 1, from 2), 4 (from 1, from 3)
    epochs: list[float] = [0.0] * 2
    for at, accuracy in enumerate(best):
        epochs += [0.0, 0.25, 0.0, accuracy] if at > 3 else [0.0, 0.0, accuracy]
    monkeypatch.setattr(Trainer, "validation_accuracy", told(epochs))
    tested: list[int] = []
    test_accuracy = Trainer.test_accuracy
    monkeypatch.setattr(Trainer, "test_accuracy", lambda self: tested.append(1) or test_accuracy(self))
    heard = Messages()
    found = recipe("[{sparsity: 0.5}, {sparsity: 0.6}, {sparsity: 0.7}, {}]", candidates=2)
    result = compress(tiny_net(), found, TinyData(), threads=1, progress=heard)
    assert [(s.parent, s.validation_accuracy, s.tried) for s in result.steps] == [
        (0, 0.9, (0.9,)), (1, 0.8, (0.8,)), (2, 0.7, (0.5, 0.7)), (3, 0.8, (0.6, 0.8))
    ]  # fmt: skip
    assert [s.sparsity for s in result.steps] == pytest.approx([0.5, 0.6, 0.7, 0.9], abs=0.01)
    assert len(tested) == 4, "the dense model, the two cuts of the last step, the result"
    assert result.hardened["validation_accuracy"] == 0.25
    assert "step 3 of 4, candidate 2 of 2: validation accuracy 70.00% at 69.93% sparsity" in heard.lines
    assert [(line.get("step"), line.get("candidate")) for line in result.history] == [
        *[(1, 1)] * 4, *[(2, 1)] * 2, *[(3, 1)] * 2, *[(3, 2)] * 2, *[(4, 1)] * 2, *[(4, 2)] * 2
    ]  # fmt: skip


def test_below_the_floor_the_last_good_model_is_the_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    accuracies = [0.0] * 4 + [0.95] + [0.0] * 2 + [0.92] + [0.0] * 2 + [0.7]
    monkeypatch.setattr(Trainer, "validation_accuracy", told(accuracies))
    heard, found = Messages(), recipe("{rates: [2, 3, 4]}", floor=0.9)
    result = compress(tiny_net(), found, TinyData(), tmp_path, threads=1, progress=heard)
    said = (
        "step 3 of 4 ends with validation accuracy 70.00%, below the floor of 90.00%; the result is the model of step 2"
    )
    assert result.note == said and said in heard.lines
    assert (
        1 / (1 - result.sparsity) == pytest.approx(3, rel=0.01)
        and [layer.violations for layer in result.layers] == [0] * 4
    )
    assert [step.kept for step in result.steps] == [True, True, False] and len(result.history) == 8
    content = json.loads((tmp_path / "result.json").read_text())
    assert content["note"] == said and content["steps"][2] == {
        "step": 3,
        "validation_accuracy": 0.7,
        "sparsity": result.steps[2].sparsity,
        "parent": 2,
        "tried": [0.7],
        "kept": False,
    }
    again = compress(tiny_net(), found, TinyData(), tmp_path, threads=1)
    assert again.to_dict() == result.to_dict() and again.steps == result.steps


def test_models_cannot_be_compared_without_validation_examples(tmp_path: Path) -> None:
    class NoValidation(TinyData):
        def validation_batches(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
            return iter(())

    remedy = (
        r"on validation examples, and tiny holds none out; load it with holdout=N \(on the command line --holdout N\)"
    )
    with pytest.raises(DataError, match=rf"^candidates: 3 compares models {remedy}"):
        compress(tiny_net(), recipe("{count: 2}", candidates=3), NoValidation(), tmp_path / "run")
    with pytest.raises(DataError, match=rf"^floor: 0\.9 compares models {remedy}"):
        compress(tiny_net(), recipe("{count: 2}", floor=0.9), NoValidation(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    result = compress(tiny_net(), recipe("{count: 2}"), NoValidation(), threads=1)
    assert [step.validation_accuracy for step in result.steps] == [None, None]


HARD = """
rules: [{targets: all, constraint: {kind: block, shape: [4, 1], sparsity: 0.75}, on_misfit: pad}]
solver: {kind: admm, rho: 0.1, growth: 1.5}
candidates: 2
steps:
  - {sparsity: 0.3, freeze: 0.25, shape_epochs: 2}
  - {sparsity: 0.5, retrain_epochs: 0, solver: {kind: magnitude, gradual: true, ramp: 2}}
  - {shape_epochs: 0, sparsity: 0.6}
  - {restarts: 1}
schedule:
  dense_epochs: 1
  shape_epochs: 1
  retrain_epochs: 1
  batch_size: 16
  dense_rate: {peak: 0.05}
  shape_rate: {peak: 0.02}
  retrain_rate: {peak: 0.05, decay: cosine}
  optimizer: {kind: sgd, momentum: 0.9, nesterov: true, weight_decay: 1.0e-3}
  distillation: {weight: 0.3, temperature: 2.0}
  norm_batches: 2
  channels_last: true
"""


def test_ctrl_c_at_every_epoch_of_every_candidate_leaves_a_run_that_resumes_exactly(tmp_path: Path) -> None:
    found = Recipe.parse(HARD)
    whole = compress(tiny_net(), found, TinyData(), threads=1)
    stops = 0
    while stops < 50:
        try:
            result = compress(tiny_net(), found, TinyData(), tmp_path, threads=1, progress=StopAt(7))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == len(whole.history) - 1 == 12
    assert same_weights(result.model.state_dict(), whole.model.state_dict())
    assert figures(result.history) == figures(whole.history) and result.steps == whole.steps
    assert result.accuracy == whole.accuracy and [layer.violations for layer in result.layers] == [0] * 4


def test_a_shaper_of_your_own_loop_goes_on_within_what_another_held() -> None:
    model = tiny_net()
    shaper = Shaper(model, recipe("[]", rules=(Rule(targets="all", constraint=Column(sparsity=0.5)),)))
    shaper.harden()
    columns = [w.detach() != 0 for w in weights(model)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    further = recipe("[]", rules=(Rule(targets=("conv2", "fc1"), constraint=Filter(sparsity=0.5)),))
    with Shaper(model, further, optimizer, held=shaper.hold) as second:
        for x, y in TinyData().train_batches(16, 0, 0):
            optimizer.zero_grad()
            (nn.functional.cross_entropy(model(x), y) + second.penalty()).backward()
            optimizer.step()
            second.step()
            assert all(
                not bool((w.detach()[~mask] != 0).any()) for w, mask in zip(weights(model), columns, strict=True)
            )
        second.harden()
    assert [m.constraint.violations(m.weight) for m in second.obeyed() if m.constraint] == [0] * 4
    assert str(second.obeyed()[1].constraint) == "Column(sparsity=0.5) and Filter(sparsity=0.5)"


def test_a_rate_begins_again_with_each_cycle() -> None:
    third = Rate(peak=1.0, decay="step", milestones=(1 / 3, 2 / 3), factor=0.1, cycles=3)
    rates = [third.at(step, 27, 3) for step in range(27)]
    assert rates == pytest.approx(([1.0] * 3 + [0.1] * 3 + [0.01] * 3) * 3)
    cosine = Rate(peak=1.0, decay="cosine", cycles=2)
    assert [cosine.at(step, 8, 8) for step in (0, 4)] == [1.0, 1.0] and cosine.at(3, 8, 8) == cosine.at(7, 8, 8) < 0.2
    plain = Rate(peak=0.3, decay="cosine", final=0.1, warmup_epochs=0.7)
    same = plain.model_copy(update={"cycles": 1})
    assert [plain.at(step, 50, 10) for step in range(50)] == [same.at(step, 50, 10) for step in range(50)]
