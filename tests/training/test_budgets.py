"""A budget instead of sparsities: from a recipe to a network that keeps it, with a table in place of the clock."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from test_resume import StopAt, same_weights
from tiny_task import TinyData, tiny_net
from torch import Tensor, nn

import openwork as ow
from openwork.allocation import allocate as room
from openwork.allocation.allocate import allocate
from openwork.allocation.allocation import Allocation
from openwork.allocation.costs import recorded
from openwork.allocation.engine_clock import EngineClock
from openwork.allocation.figures import FILE
from openwork.errors import DataError, OpenworkNotice, RecipeError, RunError, UsageError
from openwork.recipes.match import match
from openwork.recipes.recipe import Recipe

RULE = "{targets: all, constraint: {kind: block, shape: [4, 1]}, on_misfit: pad}"
SCHEDULE = """
solver: {kind: magnitude}
schedule: {shape_epochs: 1, retrain_epochs: 2, batch_size: 16, shape_rate: {peak: 0.01}, retrain_rate: {peak: 0.01}}
"""
DENSE = {"conv1": 50.0, "conv2": 200.0, "fc1": 20.0, "head": 10.0}
"""Microseconds of the layers of the tiny network; another 20 are no layer's."""


def recipe(budget: str, rules: str = RULE) -> Recipe:
    return Recipe.parse(f"rules: [{rules}]\nconstraints: {budget}\n{SCHEDULE}")


class Table:
    """Times that are known: sparse kernels take 1.5 times as long for each weight as dense ones, `slow` layers never
    win; the whole network takes `together` times what its layers save."""

    def __init__(self, slow: tuple[str, ...] = ("conv1",), together: float = 1.0) -> None:
        self.slow, self.together, self.asked = slow, together, []

    def key(self, name: str) -> str:
        return f"table {name}"

    def layer(self, name: str, member: Tensor | None) -> float:
        self.asked.append(name)
        if member is None:
            return DENSE[name]
        share = float(member.count_nonzero()) / member.numel()
        return DENSE[name] * (1.2 if name in self.slow else min(1.0, 1.5 * share))

    def network(self, members: Mapping[str, Tensor]) -> float:
        dense = 20 + sum(DENSE.values())
        saved = sum(DENSE[name] - self.layer(name, member) for name, member in members.items())
        return dense - saved * self.together


def picked(found: Allocation) -> dict[str, float]:
    return {layer.name: layer.sparsity for layer in found.layers}


@pytest.mark.parametrize("method", ["convex", "greedy"])
def test_latency_is_kept_and_what_is_not_faster_stays_dense(method: str) -> None:
    found = allocate(tiny_net(), recipe(f"{{latency: 60%, method: {method}}}"), TinyData(), clock=Table())
    spent = found.spent["latency"]
    assert spent.dense == 300 and spent.limit == 180
    assert spent.predicted <= 180 and spent.measured == pytest.approx(spent.predicted)
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["conv1"].sparsity == 0 and by_name["conv1"].break_even is None
    assert by_name["conv1"].why == "dense: not faster at any sparsity up to 0.97"
    assert by_name["conv2"].sparsity > 0 and by_name["conv2"].break_even == 0.5
    assert found.recipe.constraints is None
    assert {m.name: m.constraint is not None for m in match(found.recipe, tiny_net())} == {
        name: sparsity > 0 for name, sparsity in picked(found).items()
    }
    assert Recipe.parse(found.recipe.dump()) == found.recipe


def test_a_layer_below_break_even_gives_its_budget_to_others() -> None:
    budget = recipe("{latency: 36%, scan: weights}")
    easy = picked(allocate(tiny_net(), budget, TinyData(), clock=Table(slow=())))
    hard = picked(allocate(tiny_net(), budget, TinyData(), clock=Table(slow=("conv1",))))
    assert easy["conv1"] > 0 and hard["conv1"] == 0
    assert sum(hard[n] for n in ("conv2", "fc1", "head")) > sum(easy[n] for n in ("conv2", "fc1", "head"))


@pytest.mark.parametrize("amount", ["40%", "3 kB"])
def test_bytes_are_those_of_the_storage_formats(amount: str, tmp_path: Path) -> None:
    result = ow.compress(tiny_net(), recipe(f"{{bytes: '{amount}'}}"), TinyData(), tmp_path, threads=1)
    found = Allocation.load(tmp_path)
    assert found is not None
    spent = found.spent["bytes"]
    assert spent.dense == 4 * sum(layer.shape[0] * int(torch.tensor(layer.shape[1:]).prod()) for layer in found.layers)
    # As many weights are left after training as magnitude pruning left, so the bytes are as predicted.
    assert sum(layer.bytes or 0 for layer in result.layers) == spent.predicted <= spent.limit
    assert Recipe.load(tmp_path / "recipe.yaml").rules == found.recipe.rules


def test_a_run_with_a_latency_budget_resumes_with_the_sparsities_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openwork.allocation.engine_clock.EngineClock", lambda *_: Table())
    budget = recipe("{latency: 60%}")
    whole = ow.compress(tiny_net(), budget, TinyData(), threads=1)
    with pytest.raises(KeyboardInterrupt):
        ow.compress(tiny_net(), budget, TinyData(), tmp_path, threads=1, progress=StopAt(8))
    monkeypatch.setattr("openwork.allocation.engine_clock.EngineClock", None)  # nothing is measured again
    again = ow.compress(tiny_net(), budget, TinyData(), tmp_path, threads=1)
    assert same_weights(whole.model.state_dict(), again.model.state_dict())
    assert [layer.constraint is None for layer in again.layers] == [True, False, *[True] * 2] or again.sparsity > 0.3
    (tmp_path / "allocation.json").unlink()
    (tmp_path / "result.json").unlink()
    with pytest.raises(RunError, match=r"has lost its allocation\.json"):
        ow.compress(tiny_net(), budget, TinyData(), tmp_path, threads=1)


def test_other_threads_or_data_are_measured_anew_but_for_a_run_that_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks: list[Table] = []

    def clock(*_: object) -> Table:
        clocks.append(Table())
        return clocks[-1]

    monkeypatch.setattr("openwork.allocation.engine_clock.EngineClock", clock)
    budget, data = recipe("{latency: 60%}"), TinyData()
    first = allocate(tiny_net(), budget, data, folder=tmp_path, threads=1)
    assert allocate(tiny_net(), budget, data, folder=tmp_path, threads=1) == first and len(clocks) == 1
    (tmp_path / FILE).unlink()
    second = allocate(tiny_net(), budget, data, folder=tmp_path, threads=2)
    assert len(clocks) == 2 and second.start != first.start
    data.train_size -= 16
    allocate(tiny_net(), budget, data, folder=tmp_path, threads=2)
    assert len(clocks) == 3
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        ow.compress(tiny_net(), budget, data, run, threads=1, progress=StopAt(8))
    begun = (run / "allocation.json").read_text()
    ow.compress(tiny_net(), budget, data, run, threads=2)
    assert (run / "allocation.json").read_text() == begun and len(clocks) == 4


def test_nothing_is_measured_twice(tmp_path: Path) -> None:
    budget, first, second = recipe("{latency: 60%}"), Table(), Table()
    found = allocate(tiny_net(), budget, TinyData(), folder=tmp_path, clock=first)
    assert first.asked and allocate(tiny_net(), budget, TinyData(), folder=tmp_path, clock=second) == found
    (tmp_path / "allocation.json").unlink()
    assert picked(allocate(tiny_net(), budget, TinyData(), folder=tmp_path, clock=second)) == picked(found)
    assert set(second.asked) <= {name for name, sparsity in picked(found).items() if sparsity}, "the network only"
    (tmp_path / FILE).write_text("{")
    (tmp_path / "allocation.json").unlink()
    with pytest.raises(RunError, match=r"allocation-figures\.json cannot be read"):
        allocate(tiny_net(), budget, TinyData(), folder=tmp_path)


@pytest.mark.parametrize("together", [0.8, 1.5])
def test_what_layers_save_together_corrects_their_budget(together: float) -> None:
    found = allocate(tiny_net(), recipe("{latency: 60%, scan: weights}"), TinyData(), clock=Table(together=together))
    alone = allocate(tiny_net(), recipe("{latency: 60%, scan: weights}"), TinyData(), clock=Table())
    spent = found.spent["latency"]
    assert spent.measured is not None and 0.85 * 180 <= spent.measured <= 180
    losses = [sum(layer.loss or 0 for layer in one.layers) for one in (found, alone)]
    assert losses[0] > losses[1] if together < 1 else losses[0] < losses[1]


def test_a_sum_over_layers_does_not_make_a_budget_impossible() -> None:
    """At their sparsest the layers sum up to 80 us; the network is measured before anything is refused."""
    found = allocate(tiny_net(), recipe("{latency: 25%, scan: weights}"), TinyData(), clock=Table(together=1.1))
    assert found.spent["latency"].predicted > 75 and (found.spent["latency"].measured or 0) <= 75


def test_where_three_measurements_do_not_suffice_it_is_said() -> None:
    class Slower(Table):
        def network(self, members: Mapping[str, Tensor]) -> float:
            return super().network(members) if not members else 195.0 - len(self.asked) / 1000

    with pytest.warns(OpenworkNotice, match=r"the network takes 195 us, 180 us was asked for"):
        found = allocate(tiny_net(), recipe("{latency: 60%}"), TinyData(), clock=Slower())
    assert found.spent["latency"].measured == pytest.approx(195, abs=1)


def test_several_budgets_hold_at_once() -> None:
    found = allocate(tiny_net(), recipe("{latency: 70%, bytes: 50%, macs: 80%}"), TinyData(), clock=Table())
    assert set(found.spent) == {"latency", "bytes", "macs"}
    assert all(one.predicted <= one.limit for one in found.spent.values())
    assert picked(found)["conv1"] == 0, "a budget of bytes does not make it faster"


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("{bytes: 1 B}", r"constraints\.bytes: 1 B is impossible: .* the nearest possible is ([\d.]+)%; choose that"),
        ("{macs: 1%}", r"constraints\.macs: 1% is impossible: .* the nearest possible is ([\d.]+)%"),
        ("{latency: 100 us}", r"constraints\.latency: 100 us is impossible: .* is ([\d.]+)%.* raise max_sparsity"),
    ],
)
def test_an_impossible_budget_names_the_nearest_possible_one(budget: str, words: str) -> None:
    rule = RULE.replace("}, on", "}, max_sparsity: 0.8, on")
    with pytest.raises(RecipeError, match=words) as caught:
        allocate(tiny_net(), recipe(budget, rule), TinyData(), clock=Table())
    found = re.search(words, str(caught.value))
    assert found is not None
    name = budget[1:].partition(":")[0]
    nearest = allocate(tiny_net(), recipe(f"{{{name}: {found[1]}%}}", rule), TinyData(), clock=Table())
    assert nearest.spent[name].predicted <= nearest.spent[name].limit * (1 + 1e-6)


def test_what_the_measured_network_cannot_reach_is_impossible_too() -> None:
    with pytest.raises(RecipeError, match=r"constraints\.latency: 30% is impossible: .* nearest possible is \d"):
        allocate(tiny_net(), recipe("{latency: 30%}"), TinyData(), clock=Table(together=0.5))


def test_a_budget_that_the_dense_network_keeps_asks_for_nothing() -> None:
    with pytest.raises(RecipeError, match=r"constraints: the dense network keeps them already"):
        allocate(tiny_net(), recipe("{bytes: 100%}"), TinyData())


def test_bounds_and_fixed_rules_are_respected() -> None:
    rules = (
        "{targets: all, constraint: {kind: unstructured}, min_sparsity: 0.5, max_sparsity: 0.75}, "
        "{targets: conv2, constraint: {kind: filter, sparsity: 0.5}}, {targets: head, constraint: {kind: filter}}"
    )
    found = allocate(tiny_net(), recipe("{macs: 45%, ratios: [0.6]}", rules), TinyData())
    by_name = {layer.name: layer for layer in found.layers}
    assert by_name["conv2"].sparsity == 0.5 and by_name["conv2"].why == "its rule has the sparsity"
    assert {by_name[name].sparsity for name in ("conv1", "fc1")} <= {0.5, 0.6, 0.75}
    # A general rule comes first; what an exception leaves dense must not fall back to it.
    dense = {name for name, sparsity in picked(found).items() if not sparsity}
    assert {m.name for m in match(found.recipe, tiny_net()) if m.constraint is None} == dense


def test_without_data_the_distance_to_the_projection_is_what_is_lost() -> None:
    model, x = tiny_net(), torch.randn(1, 1, 8, 8)
    found = allocate(model, recipe("{macs: 30%, scan: weights}"), example_inputs=x)
    assert all(layer.accuracy is None and 0 <= (layer.loss or 0) <= 1 for layer in found.layers)
    with pytest.raises(UsageError, match=r"scan is loss, which needs data"):
        allocate(model, recipe("{macs: 30%}"), example_inputs=x)
    with pytest.raises(UsageError, match=r"needs one example"):
        allocate(model, recipe("{macs: 30%, scan: weights}"))
    with pytest.raises(UsageError, match=r"the recipe has no budget"):
        allocate(model, "block4x1-80", TinyData())


def test_the_scan_is_of_validation_data_and_leaves_the_model_alone() -> None:
    model, data = tiny_net().train(), TinyData()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    found = allocate(model, recipe("{bytes: 40%, ratios: [0.9]}"), data)
    assert same_weights(model.state_dict(), before) and model.training
    layer = next(layer for layer in found.layers if layer.sparsity == 0.9)
    cut = tiny_net().eval()
    constraint = next(m.constraint for m in match(found.recipe, cut) if m.name == layer.name)
    assert constraint is not None
    cut.get_submodule(layer.name).weight.data.copy_(constraint.project(cut.get_submodule(layer.name).weight))
    x, y = next(data.validation_batches(100))
    with torch.no_grad():
        losses = [float(nn.functional.cross_entropy(m(x), y)) for m in (cut, tiny_net().eval())]
        accuracy = float((cut(x).argmax(1) == y).float().mean())
    assert layer.loss == pytest.approx(max(0.0, losses[0] - losses[1]), abs=1e-5)
    assert layer.accuracy == pytest.approx(accuracy)

    class Nothing(TinyData):
        train_size = 0

        def validation_batches(self, batch_size: int):  # type: ignore[no-untyped-def]
            return iter(())

        def train_batches(self, batch_size: int, seed: int, epoch: int):  # type: ignore[no-untyped-def]
            return iter(())

    with pytest.raises(DataError, match="no validation or training examples"):
        allocate(model, recipe("{bytes: 40%}"), Nothing())


def test_steps_go_towards_what_was_picked(tmp_path: Path) -> None:
    stepwise = recipe("{bytes: 40%, scan: weights}").model_copy(update={"steps": (ow.Step(share=0.5), ow.Step())})
    result = ow.compress(tiny_net(), stepwise, TinyData(), tmp_path, threads=1)
    spent = json.loads((tmp_path / "allocation.json").read_text())["spent"]["bytes"]
    assert len(result.steps) == 2
    assert sum(layer.bytes or 0 for layer in result.layers) <= spent["limit"]


def test_a_shaper_wants_the_sparsities_picked_first() -> None:
    with pytest.raises(UsageError, match=r"pick its sparsities with openwork\.allocate"):
        ow.Shaper(tiny_net(), recipe("{bytes: 40%}"))


def test_weights_that_are_still_to_be_trained_cannot_tell_where_sparsity_harms() -> None:
    budget = recipe("{bytes: 40%}")
    budget = budget.model_copy(update={"schedule": budget.schedule.model_copy(update={"dense_epochs": 2})})
    with pytest.raises(RecipeError, match=r"constraints: .*schedule\.dense_epochs = 2 .* train the model first"):
        ow.compress(tiny_net(), budget, TinyData())


def test_multiply_adds_are_counted_where_layers_are_applied() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, stride=2), nn.Conv2d(8, 8, 3, groups=8))
    positions = {name: calls[0].positions for name, calls in recorded(model, (torch.zeros(1, 3, 8, 8),)).items()}
    assert positions == {"0": 16, "1": 4}
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    tokens = recorded(layer, (torch.zeros(1, 5, 16),))
    assert {name: calls[0].positions for name, calls in tokens.items()} == {"self_attn": 5, "linear1": 5, "linear2": 5}
    assert recorded(nn.GRU(6, 4), (torch.zeros(7, 1, 6),))[""][0].positions == 7


def test_the_engines_clock_times_layers_alone_and_the_network() -> None:
    """That it answers, not how fast anything is."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 4)).eval()
    clock = EngineClock(model, (torch.randn(1, 3, 3, 3),), 1)
    sparse = model[0].weight.detach().clone()
    sparse[:, 1:] = 0
    assert clock.layer("0", None) > 0 and clock.layer("0", sparse) >= 0
    assert clock.network({}) > 0 and clock.network({"0": sparse}) > 0
    assert "Conv2d(3, 4" in clock.key("0") and clock.key("0") != clock.key("2")


def test_a_layer_that_cannot_be_timed_stays_dense() -> None:
    class Broken(Table):
        def layer(self, name: str, member: Tensor | None) -> float:
            if name == "conv2":
                raise UsageError("no engine for it")
            return super().layer(name, member)

        def network(self, members: Mapping[str, Tensor]) -> float:
            return super().network(members) + (0 if members else 200)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OpenworkNotice)
        found = allocate(tiny_net(), recipe("{latency: 95%}"), TinyData(), clock=Broken(()))
    layer = next(layer for layer in found.layers if layer.name == "conv2")
    assert layer.sparsity == 0 and layer.why == "dense: it cannot be timed alone (no engine for it)"
    assert json.loads(json.dumps(found.to_dict()))["layers"][1]["name"] == "conv2"
    assert room.ROUNDS == 3
