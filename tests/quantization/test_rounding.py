"""Layers that round their inputs: what they compute, what stays of them, and their file."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from openwork.errors import ModelError, RunError
from openwork.quantization.rounding import Grid, grids, load, roundable, save, simulate, unsimulate


def network() -> nn.Sequential:
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))


GRIDS = {"0": Grid(scale=0.02, low=-127, high=127), "3": Grid(scale=0.01, low=0, high=255)}


@pytest.mark.parametrize(
    ("bits", "signed", "low", "high"), [(8, False, 0, 255), (8, True, -127, 127), (4, True, -7, 7), (2, False, 0, 3)]
)
def test_a_grid_has_as_many_values_as_its_bits_hold(bits: int, signed: bool, low: int, high: int) -> None:
    grid = Grid.of(3.0, bits, signed)
    assert (grid.low, grid.high) == (low, high) and grid.scale == pytest.approx(3.0 / high)
    assert grid.scale == torch.tensor(grid.scale).item()  # a float32 number
    assert Grid.of(0.0, bits, signed).scale > 0


def test_gradients_are_one_inside_the_grid_and_zero_beyond() -> None:
    x = torch.tensor([-0.7, -0.2, 0.3, 1.4, 1.9], requires_grad=True)
    Grid(scale=0.5, low=0, high=3).round(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 0]  # -0.2 rounds to 0, which is on the grid


def test_layers_round_their_inputs_and_nothing_else_changes() -> None:
    model, x = network(), torch.randn(2, 3, 4, 4)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    conv, linear = copy.deepcopy(model[0]), copy.deepcopy(model[3])
    hidden = conv(GRIDS["0"].round(x)).relu().flatten(1)
    expected = linear(GRIDS["3"].round(hidden))

    assert simulate(model, GRIDS) is model and grids(model) == GRIDS
    assert torch.equal(model(x), expected)
    assert isinstance(model[0], nn.Conv2d) and set(roundable(model)) == {"0", "3"}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert [name for name, _ in model.named_modules()] == [name for name, _ in network().named_modules()]
    assert torch.equal(copy.deepcopy(model)(x), expected)

    plain = unsimulate(model)
    assert type(plain[0]) is nn.Conv2d and type(plain[3]) is nn.Linear and grids(plain) == {}
    assert torch.equal(plain(x), network()(x))
    assert vars(plain[3]).keys() == vars(network()[3]).keys()


def test_export_sees_the_operator_before_each_layer() -> None:
    model = simulate(network(), GRIDS).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about itself
        exported = torch.export.export(model, (torch.randn(1, 3, 4, 4),)).run_decompositions({})
    found = [
        tuple(node.args[1:])
        for node in exported.graph.nodes
        if node.target == torch.ops.aten.fake_quantize_per_tensor_affine.default
    ]
    assert found == [(0.02, 0, -127, 127), (0.01, 0, 0, 255)]


def test_what_a_module_gives_is_rounded_for_all_who_read_it() -> None:
    model, x, grid = network(), torch.randn(2, 3, 4, 4), Grid(scale=0.1, low=0, high=15)
    expected = model[3](grid.round(model[1](model[0](x))).flatten(1))
    simulate(model, {"1:output": grid})
    assert torch.equal(model(x), expected) and isinstance(model[1], nn.ReLU) and grids(model) == {"1:output": grid}
    whole = simulate(network(), {":output": grid, "0": GRIDS["0"]})
    assert set(grids(whole)) == {":output", "0"} and isinstance(whole, nn.Sequential)
    assert torch.equal(whole(x), grid.round(simulate(network(), {"0": GRIDS["0"]})(x)))
    with pytest.raises(ModelError, match="'7:output' is no module of Sequential"):
        simulate(network(), {"7:output": grid})


def test_layers_of_other_arithmetic_are_left_alone() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return 2 * super().forward(input)

    class Renamed(nn.Linear):
        pass

    model = nn.Sequential(Doubled(2, 2), Renamed(2, 2), nn.Conv1d(2, 2, 1))
    assert set(roundable(model)) == {"1"}
    simulate(model, {"1": GRIDS["3"]})
    assert isinstance(model[1], Renamed) and type(unsimulate(model)[1]) is Renamed
    with pytest.raises(ModelError, match="'0' is no convolution or linear layer of Sequential"):
        simulate(model, {"0": GRIDS["3"]})


def test_a_file_holds_the_grids(tmp_path: Path) -> None:
    save(tmp_path / "a.json", GRIDS)
    assert load(tmp_path / "a.json") == GRIDS
    good = (tmp_path / "a.json").read_text()
    for bad in (
        "",
        "[]",
        "{}",
        good.replace('"format": 1', '"format": 2'),
        good.replace("0.02", "-1.0"),
        good.replace("255", "256"),
    ):
        (tmp_path / "a.json").write_text(bad)
        with pytest.raises(RunError, match="make it anew"):
            load(tmp_path / "a.json")
