"""Quantization-aware training: what layers compute meanwhile, how gradients pass, and what is left at the end."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_task import RULES, TinyData, TinyNet, tiny_net, tiny_recipe
from torch import Tensor, nn

import openwork as ow
from openwork.constraints.levels import Levels
from openwork.errors import DataError, RecipeError, RunError, TrainingError, UsageError
from openwork.models._vit import VisionTransformer
from openwork.quantization import rounding
from openwork.recipes.recipe import Recipe
from openwork.training.compress import compress
from openwork.training.fit import Trainer
from openwork.training.hold import Hold
from openwork.training.quantize import EVERY, Learning, Quantizer
from openwork.training.shaper import Shaper, strip

LAYERS = ("conv1", "conv2", "fc1", "head")


def recipe(quantize: str = "{}", rules: str = RULES, schedule: str = "batch_size: 16") -> Recipe:
    text = f"{rules}\nsolver: {{kind: magnitude}}\nquantize: {quantize}\nschedule: {{{schedule}}}"
    return Recipe.parse(text)


def batches(count: int = 2) -> list[Tensor]:
    return [x for x, _ in TinyData().train_batches(16, 0, 0)][:count]


def started(quantize: str = "{}", rules: str = RULES) -> tuple[TinyNet, Shaper]:
    """A pruned network whose layers round."""
    model = tiny_net().train()
    shaper = Shaper(model, recipe(quantize, rules))
    shaper.harden()
    shaper.quantize(batches())
    return model, shaper


def on_grid(weight: Tensor, bits: int, per: str = "channel") -> bool:
    return Levels(bits=bits, per=per).violations(weight) == 0  # type: ignore[arg-type]


def test_layers_work_on_grids_while_the_weights_behind_them_move_and_keep_their_zeros() -> None:
    model, shaper = started("{weights: {bits: {all: 4, head: 8}}, activations: {bits: 8}}")
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    for name in LAYERS:
        how = rounding.rule_of(model.get_submodule(name))
        assert isinstance(how, Learning)
        before = how.weight

        def weight(w: Tensor, name: str = name, before: Any = before) -> Tensor:
            found: Tensor = before(w)
            seen[name] = w.detach().clone(), found.detach()
            return found

        how.weight = weight  # type: ignore[method-assign]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    zeros = {name: model.get_submodule(name).weight == 0 for name in LAYERS}
    for x, y in list(TinyData().train_batches(16, 0, 0)) * 2:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        shaper.step()
    for name in LAYERS:
        behind, used = seen[name]
        bits = 8 if name == "head" else 4
        assert len(used[0].unique()) <= 2**bits - 1 and not torch.equal(behind, used)
        now = model.get_submodule(name).weight
        assert isinstance(now, Tensor) and (now[zeros[name]] == 0).all() and (used[zeros[name]] == 0).all()
        # The weight moves on, and the grid with it.
        assert not torch.equal(now, behind) and (used - behind).norm() < 0.3 * behind.norm()


def test_gradients_are_one_inside_the_ends_and_zero_beyond() -> None:
    learning = Learning("", Levels(bits=2, per="channel"))
    w = torch.tensor([[1.0, -1.0, 0.4, 2.4], [10.0, -10.0, 4.0, 16.0]], requires_grad=True)
    learning.share = torch.tensor([[1.0], [10.0]]) / w.detach().norm(dim=1, keepdim=True)
    factor = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    found = learning.weight(w)
    (found * factor).sum().backward()
    assert found.detach().allclose(torch.tensor([[1.0, -1, 0, 1], [10, -10, 0, 10]]))
    assert w.grad is not None and w.grad.tolist() == [[1, 2, 3, 0], [5, 6, 7, 0]]


def test_scales_follow_weights_and_while_training_inputs() -> None:
    model, _ = started("{activations: {momentum: 0.5}}")
    layer = model.conv2
    how = rounding.rule_of(layer)
    assert isinstance(how, Learning) and how.before is not None and how.before.grid.low == 0
    before = how.weight(layer.weight).detach()
    with torch.no_grad():
        layer.weight.mul_(1.2)
    assert torch.allclose(how.weight(layer.weight), 1.2 * before)
    scale = how.before.grid.scale
    x = 4 * batches()[0]
    model.eval()
    model(x)
    assert how.before.grid.scale == scale
    model.train()
    for _ in range(5 * EVERY):
        model(x)
    assert how.before.grid.scale > 1.05 * scale
    _, still = started("{activations: {momentum: 1}}")
    assert still._quantizer is not None
    before = still._quantizer.learning["conv2"].before
    assert before is not None
    scale = before.grid.scale
    for _ in range(EVERY):
        still.model.train()(x)
    assert before.grid.scale == scale


def test_at_the_end_weights_are_what_layers_worked_with_and_strip_leaves_a_plain_model() -> None:
    model, shaper = started("{weights: {bits: 4}, activations: {bits: 8}}")
    model.eval()
    x = batches()[0]
    before = model(x)
    shaper.round()
    assert torch.allclose(model(x), before, atol=1e-4)
    assert all(on_grid(model.get_submodule(name).weight, 4) for name in LAYERS)  # type: ignore[arg-type]
    assert set(rounding.grids(model)) == set(LAYERS)
    assert [m.constraint.violations(m.weight) for m in shaper.obeyed() if m.constraint] == [0] * 4
    assert "Levels(bits=4" in str(shaper.obeyed()[0].constraint) and "Block" in str(shaper.obeyed()[0].constraint)
    assert model.state_dict().keys() == tiny_net().state_dict().keys()
    plain = strip(model)
    assert [type(m) for m in plain.modules()] == [type(m) for m in tiny_net().modules()]
    assert not torch.equal(plain(x), before)


@pytest.mark.parametrize(
    ("constraint", "per"),
    [
        ("{kind: polarized, fragment: 4}", "layer"),
        ("{kind: circulant, block: 2}", "layer"),
        ("{kind: nm, n: 2, m: 4}", "channel"),
    ],
)
def test_ties_hold_since_tied_layers_have_one_scale(constraint: str, per: str) -> None:
    rules = f"rules: [{{targets: all, constraint: {constraint}, on_misfit: skip}}]"
    model, shaper = started("{weights: {bits: 3}}", rules)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for x, y in TinyData().train_batches(16, 0, 0):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        shaper.step()
    shaper.round()
    for m in shaper.obeyed():
        assert m.constraint is not None and m.constraint.violations(m.weight) == 0, m.name
    assert shaper.matches[2].constraint is not None and on_grid(model.fc1.weight, 3, per)


def test_layers_on_levels_keep_them_and_some_may_be_left_out() -> None:
    rules = "rules: [{targets: [conv1, fc1], constraint: {kind: levels, bits: 2}}]"
    model, shaper = started("{ignore: head, activations: {observer: minmax}}", rules)
    codes = model.fc1.weight.detach().clone()
    shaper.round()
    assert torch.equal(model.fc1.weight, codes) and set(rounding.grids(model)) == {"conv1", "conv2", "fc1"}
    assert on_grid(model.conv2.weight, 8) and not on_grid(model.head.weight, 8)
    assert shaper.hold.obeyed("head") is None

    model, shaper = started("{activations: null}")
    shaper.round()
    assert rounding.grids(model) == {} and on_grid(model.head.weight, 8)
    assert type(model.head) is nn.Linear
    model, shaper = started("{weights: null}")
    before = model.head.weight.detach().clone()
    shaper.round()
    assert set(rounding.grids(model)) == set(LAYERS) and torch.equal(model.head.weight, before)


def test_layers_that_cannot_round_are_left_alone() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.one, self.two, self.idle = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.two.weight = self.one.weight
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.two(self.one(self.attention(x, x, x)[0])))
            return y

    model = Several()
    rules = Recipe.parse("rules: [{targets: last, constraint: {kind: unstructured, sparsity: 0.5}}]\nquantize: {}")
    shaper = Shaper(model, rules)
    shaper.harden()
    before = model.idle.weight.detach().clone()
    shaper.quantize([torch.randn(2, 3, 8)])
    shaper.round()
    # What `last` reads is rounded where it is made.
    assert set(rounding.grids(model)) == {"two:output"} and torch.equal(model.idle.weight, before)
    assert on_grid(model.last.weight, 8) and not on_grid(model.one.weight, 8)


@pytest.mark.parametrize("few_first", [False, True])
def test_layers_that_read_one_value_share_its_grid(few_first: bool) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.few, self.last = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x).relu()
            early = self.few(x) if few_first else 0
            both = self.left(x) + self.right(x)
            y: Tensor = self.last(both + (early if few_first else self.few(x)) + x.clone())
            return y

    text = "rules: [{targets: first, constraint: {kind: unstructured, sparsity: 0.5}}]\nquantize: "
    text += "{activations: {momentum: 0.5, bits: {all: 8, few: 4}}}"
    model, x = Forked().train(), torch.randn(16, 4)
    shaper = Shaper(model, Recipe.parse(text))
    shaper.harden()
    shaper.quantize([x])
    resumed = Shaper(Forked().train(), Recipe.parse(text))
    resumed.load_state_dict(shaper.state_dict())
    resumed.model.load_state_dict(model.state_dict())
    for one in (shaper, resumed):
        for _ in range(2 * EVERY):
            one.model(3 * x)
        one.round()
    found = rounding.grids(model)
    assert found == rounding.grids(resumed.model)
    assert found["left"] == found["right"] and found["few"].high == 15
    assert len({found[name].scale for name in ("first", "left", "few", "last")}) == 4


def test_a_value_is_rounded_where_it_is_made_so_that_additions_read_it_rounded() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.act, self.left, self.right = (
                nn.LayerNorm(8),
                nn.ReLU(True),
                nn.Linear(8, 8),
                nn.Linear(8, 8),
            )

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.act(self.right(self.act(self.norm(self.left(x)))) + x)
            return y

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
            self.body = nn.Sequential(Block(), Block())
            self.last = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(self.body(self.stem(x)))
            return y

    text = "rules: [{targets: last, constraint: {kind: unstructured, sparsity: 0.5}}]\nquantize: "
    text += "{activations: {momentum: 0.5}}"
    torch.manual_seed(0)
    model, x = Net().train(), torch.randn(16, 4)
    shaper = Shaper(model, Recipe.parse(text))
    shaper.harden()
    shaper.quantize([x, x])
    for _ in range(EVERY + 1):
        model(2 * x).sum().backward()
    resumed = Shaper(Net().train(), Recipe.parse(text))
    resumed.load_state_dict(shaper.state_dict())
    resumed.model.load_state_dict(model.state_dict())
    for one in (model, resumed.model):
        for _ in range(EVERY):
            one(x)
    shaper.round()
    resumed.round()
    found = rounding.grids(model)
    # `act` runs twice in a block and changes its input in place, so what it gives is rounded by who reads it.
    made = {"stem:output", "body.0:output", "body:output"}
    assert set(found) == {"stem.0", *made, "body.0.right", "body.1.right"}
    assert found == rounding.grids(resumed.model) and torch.equal(model.eval()(x), resumed.model.eval()(x))
    assert found["stem:output"].low < 0 and found["body.0:output"].low == 0

    values: dict[str, Tensor] = {}
    model.body[1].register_forward_pre_hook(lambda module, args: values.update(read=args[0]))
    model(x)
    grid = found["body.0:output"]
    assert torch.equal(grid.round(values["read"]), values["read"]), "the addition reads what the layer reads"
    fresh = Net()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(rounding.simulate(fresh, found).eval()(x), model(x))
    assert [type(m) for m in strip(model).modules()] == [type(m) for m in Net().modules()]


def test_mistakes_are_named() -> None:
    shaper = Shaper(tiny_net(), recipe())
    with pytest.raises(UsageError, match="after harden"):
        shaper.quantize(batches())
    shaper.harden()
    with pytest.raises(DataError, match="no batch to calibrate"):
        shaper.quantize([])
    with pytest.raises(TrainingError, match="layer 'conv1' sees NaN or infinite inputs"):
        shaper.quantize([batches()[0] * float("inf")])
    with pytest.raises(UsageError, match=r"round\(\) comes after quantize\(\)"):
        shaper.round()
    shaper = Shaper(tiny_net(), Recipe.parse(RULES))
    shaper.harden()
    with pytest.raises(UsageError, match="the recipe has no 'quantize'"):
        shaper.quantize(batches())
    nested = (
        "rules: [{targets: all, constraint: {kind: nested, of: {kind: unstructured, sparsity: 0.5}, sparser: [0.75]}}]"
    )
    later = "steps: [{}, {rules: [" + nested.removeprefix("rules: [").removesuffix("]") + "]}]"
    beside = nested.replace("{kind: nested", "{kind: and, of: [{kind: filter, sparsity: 0.25}, {kind: nested")
    beside = beside.replace("[0.75]}", "[0.75]}]}")
    for wrong in (recipe(rules=nested), recipe(rules=beside), recipe(rules=f"{RULES}\n{later}")):
        with pytest.raises(RecipeError, match="nested sparsity holds networks inside each other"):
            compress(tiny_net(), wrong, TinyData())
    with pytest.raises(RecipeError, match=r"quantize\.ignore: 'fc9' matches no"):
        compress(tiny_net(), recipe("{ignore: fc9}"), TinyData())
    with pytest.raises(RecipeError, match=r"quantize\.weights\.bits: 'fc9' matches no"):
        compress(tiny_net(), recipe("{weights: {bits: {fc9: 4}}}"), TinyData())
    with pytest.raises(RecipeError, match="no layer is left to quantize"):
        compress(tiny_net(), recipe("{ignore: all}"), TinyData())


@pytest.mark.parametrize(
    ("quantize", "message"),
    [
        ("{weights: {bits: 0}}", r"quantize\.weights\.bits\.all: 0 is not in 2\.\.8"),
        ("{activations: {bits: 9}}", r"quantize\.activations\.bits\.all: 9 is not in 2\.\.8"),
        (
            "{activations: {observer: best}}",
            r"quantize\.activations\.observer: unknown observer 'best'.* mse",
        ),
        ("{weight: {bits: 4}}", "unknown field 'weight'; did you mean weights"),
        ("{weights: null, activations: null}", "neither weights nor activations have bits"),
        ("{activations: {momentum: 2}}", r"quantize\.activations\.momentum: 2"),
    ],
)
def test_recipes_are_validated(quantize: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(quantize)


def test_epochs_of_quantization_need_something_to_quantize() -> None:
    with pytest.raises(RecipeError, match=r"schedule\.quantize_epochs = 3 and nothing is quantized"):
        Recipe.parse(RULES + "schedule: {quantize_epochs: 3}")
    found = recipe("{weights: {bits: {all: 4, conv1: 8}}, ignore: head}", schedule="quantize_epochs: 3")
    assert Recipe.parse(found.dump()) == found


def test_a_run_ends_with_weights_on_grids_and_a_file_of_scales(tmp_path: Path) -> None:
    model = tiny_net()
    result = compress(model, tiny_recipe("quantized"), TinyData(), tmp_path / "run", threads=1)
    assert [line["phase"] for line in result.history] == ["retrain", "quantize", "quantize"]
    assert set(result.quantized) == {"float32", "calibrated"}
    assert set(result.quantized["float32"]) == {"test_accuracy", "validation_accuracy"}
    content = json.loads((tmp_path / "run" / "result.json").read_text())
    assert content == result.to_dict() and content["quantized"] == result.quantized
    assert [layer.violations for layer in result.layers] == [0] * 4
    assert all(layer.format == "codes" for layer in result.layers)

    fresh = tiny_net()
    fresh.load_state_dict(ow_weights(tmp_path / "run"))
    rounding.simulate(fresh, rounding.load(tmp_path / "run" / rounding.FILE))
    assert rounding.grids(fresh) == rounding.grids(model) and len(rounding.grids(model)) == 4
    assert all(on_grid(fresh.get_submodule(n).weight, 8 if n == "conv1" else 4) for n in LAYERS)  # type: ignore[arg-type]
    assert Trainer(fresh, TinyData(), tiny_recipe("quantized").schedule).test_accuracy() == result.accuracy

    again = compress(tiny_net(), tiny_recipe("quantized"), TinyData(), tmp_path / "run", threads=1)
    assert rounding.grids(again.model) == rounding.grids(model) and again.quantized == result.quantized
    # The model of a finished run, rounding inputs as it does, is taken for what it is.
    assert (
        compress(model, tiny_recipe("quantized"), TinyData(), tmp_path / "run", threads=1).accuracy == result.accuracy
    )
    (tmp_path / "run" / rounding.FILE).write_text("{")
    with pytest.raises(RunError, match=r"activations\.json cannot be read"):
        compress(tiny_net(), tiny_recipe("quantized"), TinyData(), tmp_path / "run", threads=1)


def ow_weights(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def test_without_epochs_the_network_is_calibrated_and_rounded() -> None:
    found = compress(tiny_net(), recipe(schedule="shape_epochs: 0, retrain_epochs: 1, batch_size: 16"), TinyData())
    assert [line["phase"] for line in found.history] == ["retrain"] and len(rounding.grids(found.model)) == 4
    assert found.accuracy == found.quantized["calibrated"]["test_accuracy"]


def test_steps_and_candidates_quantize_after_the_last_step() -> None:
    text = (
        RULES
        + """
quantize: {}
steps: [{sparsity: 0.5}, {}]
candidates: 2
solver: {kind: magnitude}
schedule: {shape_epochs: 0, retrain_epochs: 1, quantize_epochs: 1, batch_size: 16}
"""
    )
    found = compress(tiny_net(), Recipe.parse(text), TinyData(), threads=1)
    assert [line["phase"] for line in found.history] == ["retrain", "retrain", "quantize"]
    assert [layer.violations for layer in found.layers] == [0] * 4 and len(rounding.grids(found.model)) == 4
    early = compress(tiny_net(), Recipe.parse(text + "floor: 0.99\n"), TinyData(), threads=1)
    assert "below the floor" in early.note and rounding.grids(early.model) == {} and not early.quantized


def test_the_engine_computes_what_the_simulation_does() -> None:
    model = tiny_net()
    compress(model, tiny_recipe("quantized"), TinyData(), threads=1)
    x, _ = next(iter(TinyData().test_batches(64)))
    engine = ow.compile(model.eval(), (x[:1],), threads=1, tune="off")
    with torch.no_grad():
        expected = model(x[:8])
    found = torch.from_numpy(engine(x[:8].numpy()))
    assert (found - expected).norm() <= 2e-2 * expected.norm()


def test_feature_losses_are_weighed_by_what_they_came_to_before_quantization() -> None:
    """GPUSQ-ViT: first 2:4 with equal weights, then few bits with each layer's weight after its loss."""
    torch.manual_seed(0)
    model = VisionTransformer(16, 2, 2, 4, 8, 4)

    class Colours(TinyData):
        def __init__(self) -> None:
            super().__init__()
            self._x = self._x.expand(-1, 3, -1, -1).contiguous()
            self.example_input = self._x[:1]

        def train_batches(self, batch_size: int, seed: int, epoch: int) -> Any:
            g = torch.Generator().manual_seed(epoch)
            order = torch.randperm(self.train_size, generator=g).split(batch_size)
            return ((self._x[chosen], self._y[chosen]) for chosen in order)

    shares: list[tuple[float, ...]] = []
    text = Recipe.load("gpusq-vit").dump()
    found = Recipe.parse(text.replace("blocks.8", "blocks.0").replace("blocks.11", "blocks.1"))
    losses = [
        loss.model_copy(update={"layers": ("blocks.0", "blocks.1")}) if loss.kind() == "feature" else loss
        for loss in found.schedule.losses
    ]
    schedule = found.schedule.model_copy(
        update={
            "losses": tuple(losses),
            "retrain_epochs": 2,
            "quantize_epochs": 1,
            "batch_size": 16,
            "precision": "float32",
        }
    )
    from openwork.training import run

    class Watched(run.Run):
        def _losses(self, phase: str) -> Any:
            found = super()._losses(phase)
            shares.append(next(loss.shares for loss in found if loss.kind() == "feature"))  # type: ignore[attr-defined]
            return found

    watched = pytest.MonkeyPatch()
    watched.setattr("openwork.training.compress.Run", Watched)
    try:
        result = compress(model, found.model_copy(update={"schedule": schedule}), Colours(), threads=1)
    finally:
        watched.undo()
    losses_before = [line for line in result.history if line["phase"] == "retrain"][-1]["losses"]
    parts = [losses_before[f"feature.blocks.{number}"] for number in range(2)]
    assert shares[0] == () and shares[-1] == pytest.approx([2 * part / sum(parts) for part in parts])
    assert sum(shares[-1]) == pytest.approx(2)
    for layer in result.layers:
        if "NM" in (layer.constraint or ""):
            weight = model.get_submodule(layer.name).weight
            assert isinstance(weight, Tensor) and (weight.flatten(1).unflatten(1, (-1, 4)) != 0).sum(-1).max() <= 2
            assert layer.violations == 0
    assert len(rounding.grids(model)) == 10


def test_a_quantizer_names_what_it_will_round() -> None:
    model = tiny_net()
    settings = recipe("{ignore: [conv2d], weights: {bits: {linear: 4}}}").quantize
    assert settings is not None
    assert list(Quantizer.of(model, settings, Hold.of(model)).learning) == ["fc1", "head"]
