"""Everything that training does runs where the network is, whatever device that is, and goes on on another one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, elsewhere
from tiny_task import RECIPES, TinyData, tiny_net, tiny_recipe

from openwork import plugins
from openwork.allocation.allocate import allocate
from openwork.constraints._padded import Padded
from openwork.constraints.base import Constraint
from openwork.errors import ShapeError, UsageError
from openwork.recipes.recipe import Recipe
from openwork.solvers.base import Solver
from openwork.training import device as devices
from openwork.training.compress import compress
from openwork.training.progress import Silent

CONSTRAINTS = [c(**e) for c in plugins.every("constraints", Constraint).values() for e in c.EXAMPLES]
SOLVERS = [s(**s.EXAMPLES[-1]) for s in plugins.every("solvers", Solver).values()]


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    monkeypatch.setattr(devices, "available", lambda: ["cpu", str(DEVICE)])
    with elsewhere() as device:
        yield device


def test_the_stand_in_refuses_what_gpus_refuse(there: torch.device) -> None:
    far, near = torch.ones(2, 3).to(there), torch.ones(2, 3)
    assert isinstance(far, Elsewhere) and far.device == there and near.device.type == "cpu"
    assert (torch.zeros(2, device=there) + far[:, 0]).device == there and torch.zeros_like(far).device == there
    assert far.cpu().device.type == "cpu" and (far * torch.tensor(2.0)).device == there
    assert far[torch.tensor([1, 0])].device == there and near.copy_(far).device.type == "cpu"
    far.cpu().mul_(2)
    near.to(there).mul_(2)
    assert far.sum() == 6 and near.sum() == 6
    for mixed in (
        lambda: far + near,
        lambda: far.mul_(near),
        lambda: torch.where(far > 0, near, 0.0),
        lambda: torch.stack([far[0, 0], torch.tensor(1.0)]),
        lambda: near[far > 0],
        lambda: torch._foreach_add([far], [near]),
        lambda: torch.searchsorted(torch.arange(4), far.long()),
    ):
        with pytest.raises(RuntimeError, match="same device"):
            mixed()
    for inside in (far.numpy, lambda: torch.arange(2).numpy() + far):
        with pytest.raises(TypeError):
            inside()


@pytest.mark.parametrize("shape", [(16, 8, 3, 3), (16, 24)], ids=("conv", "linear"))
@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=str)
def test_constraints_work_where_the_weight_is(constraint: Constraint, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    weight = torch.randn(shape)
    try:
        constraint.check(weight.shape)
    except ShapeError:
        constraint = Padded(inner=constraint)
        try:
            constraint.check(weight.shape)
        except ShapeError:
            pytest.skip("no weight of this shape")

    def everything(w: torch.Tensor) -> list[Any]:
        (settled,) = constraint.fitted([w])
        member = settled.project(w)
        wider = settled.relaxed(0.5)
        return [
            member,
            settled.mask(w),
            settled.hold(w + 1, member),
            settled.holder(member).gradient(w),
            settled.group_norms(w),
            *settled.levels(w),
            settled.violations(w),
            settled.violations(member),
            *([wider.project(w)] if wider is not None else []),
            str(settled),
        ]

    here = everything(weight)
    with elsewhere() as device:
        far = everything(weight.to(device))
        for a, b in zip(here, far, strict=True):
            if isinstance(a, torch.Tensor):
                assert b.device == device and torch.equal(a, b.cpu())
            else:
                assert a == b


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_solvers_and_losses_work_where_the_model_is(solver: Solver, there: torch.device) -> None:
    losses = (
        "[{kind: labels}, {kind: hard}, {kind: soft}, {kind: feature, layers: [conv1, fc1]}, {kind: self_supervised}]"
    )
    recipe = Recipe.parse(
        "rules: [{targets: all, constraint: {kind: block, shape: [2, 1], sparsity: 0.5}, on_misfit: pad}]\n"
        f"schedule: {{shape_epochs: 2, retrain_epochs: 1, batch_size: 48, losses: {losses}}}"
    )
    recipe = recipe.model_copy(update={"solver": solver})
    model = tiny_net()
    result = compress(model, recipe, TinyData(), threads=1, device=there)
    assert result.model is model and all(type(p) is torch.nn.Parameter for p in model.parameters())
    assert {layer.violations for layer in result.layers} == {0}
    far = tiny_net().to(there)
    again = compress(far, recipe, TinyData(), threads=1)
    assert all(p.device == there for p in again.model.parameters())
    for name, value in again.model.state_dict().items():
        torch.testing.assert_close(value.cpu(), model.state_dict()[name], rtol=1e-3, atol=1e-4)


class StopAfter(Silent):
    """Ctrl-C after so many epochs."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def epoch_ended(self, metrics: dict[str, Any]) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def short(recipe: Recipe) -> Recipe:
    epochs = {"shape_epochs": 1, "retrain_epochs": 1, "dense_epochs": min(1, recipe.schedule.dense_epochs)}
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=epochs)})


MORE = {
    "nested": """
rules: [{targets: all, constraint: {kind: nested, of: {kind: unstructured, sparsity: 0.5}, sparser: [0.8]}}]
schedule: {shape_epochs: 1, retrain_epochs: 2, batch_size: 48}
""",
    "frozen": """
rules: [{targets: "re:conv.*", constraint: {kind: unstructured, sparsity: 0.8}}]
steps: [{share: 0.5, freeze: 0.5}, {}]
candidates: 2
schedule: {shape_epochs: 1, retrain_epochs: 1, batch_size: 48}
""",
    "levels": """
rules: [{targets: all, constraint: {kind: levels, bits: 3}}]
steps: [{rules: [{targets: all, constraint: {kind: unstructured, sparsity: 0.5}}]}, {}]
schedule: {shape_epochs: 1, retrain_epochs: 1, batch_size: 48}
""",
}


@pytest.mark.parametrize("name", ["admm", "slr", "quantized", *MORE])
def test_a_run_goes_on_on_another_device(name: str, there: torch.device, tmp_path: Path) -> None:
    recipe = short(tiny_recipe(name)) if name in RECIPES else Recipe.parse(MORE[name], name=name)
    whole = compress(tiny_net(), recipe, TinyData(), threads=1)
    epochs = len(whole.history)
    stops = [(1, there), (epochs // 2, "cpu"), (epochs - epochs // 2 - 2, there)]
    for stop, device in stops:
        if stop > 0:
            with pytest.raises(KeyboardInterrupt):
                compress(tiny_net(), recipe, TinyData(), tmp_path, threads=1, device=device, progress=StopAfter(stop))
    done = compress(tiny_net(), recipe, TinyData(), tmp_path, threads=1, device="cpu")
    assert len(done.history) == epochs
    assert done.accuracy == pytest.approx(whole.accuracy, abs=0.05) and done.nonzero == whole.nonzero


def test_budgets_are_picked_where_the_model_is_trained(there: torch.device) -> None:
    recipe = Recipe.parse(
        "rules: [{targets: all, constraint: {kind: unstructured}}]\n"
        "constraints: {bytes: 40%, macs: 50%, examples: 32, ratios: [0.5, 0.9]}\n"
        "schedule: {shape_epochs: 1, retrain_epochs: 1, batch_size: 48}"
    )
    here = allocate(tiny_net(), recipe, TinyData())
    assert allocate(tiny_net().to(there), recipe, TinyData()).recipe == here.recipe
    assert compress(tiny_net(), recipe, TinyData(), threads=1, device=there).nonzero > 0


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("cuda:7", "gpu", "meta", "mps"):
        with pytest.raises(UsageError, match=rf"unknown device '{name}'.*known: cpu"):
            compress(tiny_net(), tiny_recipe(), TinyData(), tmp_path / "run", device=name)
    assert not (tmp_path / "run").exists()


def test_gpus_are_known_by_kind_and_number_where_they_can_do_projections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for kind, known in (("cuda", ["cpu", "cuda", "cuda:0", "cuda:1"]), ("mps", ["cpu"])):
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda kind=kind: torch.device(kind))
        assert devices.available() == known
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    assert devices.resolve("cuda:1") == torch.device("cuda", 1) and devices.resolve("cpu").type == "cpu"
