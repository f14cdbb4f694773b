"""Activations that are rounded row by row: what it does, where it is done, files, and mistakes."""

import copy
import pickle
from pathlib import Path

import pytest
import torch
from small import attention, error, images, residual, sentences
from torch import nn

import openwork
from openwork.errors import ModelError, UsageError
from openwork.quantization import folder
from openwork.quantization.network import captured
from openwork.quantization.places import find_places
from openwork.quantization.quantize import report_of
from openwork.quantization.rows import RowGrid, SeenRows, round_rows


@pytest.fixture(scope="module")
def quantized() -> nn.Module:
    return openwork.quantize(attention(), sentences(), sentences()[0], per_row=True, measured=4)


@pytest.mark.parametrize("high", [1, 7, 127])
def test_each_row_is_rounded_by_its_own_largest_value(high: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 5, 16) * torch.tensor([1e-3, 1.0, 1e4, 1e-36, 0.0])[:, None]
    found = round_rows(x, high)
    for row, ours in zip(x.flatten(0, 1), found.flatten(0, 1), strict=True):
        largest = float(row.abs().max())
        if largest < 1e-30:
            assert ours.abs().max() <= 1e-30
            continue
        step = largest / high
        wanted = torch.tensor([round(float(v) / step) * step for v in row])
        torch.testing.assert_close(ours, wanted, rtol=1e-6, atol=0.0)
        assert len((ours / step).round().unique()) <= 2 * high + 1
    assert torch.equal(round_rows(found, high), found), "rounding again changes nothing"


def test_places_are_the_inputs_of_linear_layers() -> None:
    places = find_places(captured(attention(), sentences()[0]), per_row=True)
    assert places.by_row == set(places.values) and len(places.values) == 4
    names = {name: node.name for name, node in places.inputs.items()}
    assert names["query"] == names["key"] == names["value"] != names["out"]


def test_convolutions_keep_one_scale_and_so_do_linear_layers_that_read_what_these_round() -> None:
    places = find_places(captured(residual(), (images()[0],)), per_row=True)
    assert [node.name for node in places.by_row] == [places.inputs["head"].name]
    assert len(places.values) == 7  # flattened pooled images are not a convolution's input

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            x = torch.relu(x)
            return self.conv(x), self.head(x)

    places = find_places(captured(Shared().eval(), (images()[0],)), per_row=True)
    assert not places.by_row and places.inputs["conv"] is places.inputs["head"]


def test_only_linear_layers_read_the_rounded_rows() -> None:
    """The residual stream does not, whether layer norm follows or not."""

    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = x + self.down(torch.relu(self.up(x)))
            return y

    torch.manual_seed(0)
    model, x = Stream(), torch.randn(32, 8)
    small = openwork.quantize(model, [x], per_row=True, correct_bias=False)
    up, down = (small.get_submodule(name) for name in ("up", "down"))
    torch.testing.assert_close(small(x), x + down(round_rows(torch.relu(up(round_rows(x, 127))), 127)))


def test_it_is_closer_where_rows_differ_in_size() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    batches = [torch.randn(16, 16) * 10 ** torch.randn(16, 1) for _ in range(4)]
    by_row, at_once = (
        openwork.quantize(model, batches, per_row=choice, correct_bias=False) for choice in (True, False)
    )
    x = torch.randn(64, 16) * 0.01
    assert error(by_row(x), model(x)) < 0.03 < error(at_once(x), model(x))


def test_the_engine_computes_what_it_simulates(quantized: nn.Module) -> None:
    for batch in (1, 3):
        x = tuple(part[:batch] for part in sentences(1)[0])
        engine = openwork.compile(quantized, x, threads=1, tune="off")
        assert error(engine(*x), quantized(*x)) < 1e-2
        found = engine.provenance["int8"]
        assert found["layers"] == found["of"]


def test_figures(quantized: nn.Module) -> None:
    found = report_of(quantized)
    assert all(isinstance(layer.grid, RowGrid) and layer.clipped == 0 for layer in found.layers)
    assert all(30 < layer.input_db < 60 for layer in found.layers)
    assert "-127..127, by row" in str(found)
    same = type(found).from_dict(found.to_dict())
    assert same.places == found.places and same.layers == found.layers


def test_saved_loaded_copied_and_exported_it_computes_the_same(quantized: nn.Module, tmp_path: Path) -> None:
    folder.save(quantized, tmp_path)
    x = sentences(1)[0]
    again = folder.load(tmp_path, attention())
    for other in (again, copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        assert torch.equal(other(*x), quantized(*x))
    assert torch.equal(torch.export.export(quantized, x).module()(*x), quantized(*x))


def test_what_was_seen_of_rows() -> None:
    seen, grid = SeenRows(RowGrid.of(4)), RowGrid.of(4)
    assert grid == RowGrid(7) and RowGrid.of(8) == RowGrid(127)
    x = torch.randn(6, 5)
    seen.add(x[:2])
    seen.add(x[2:])
    power, noise, clipped = seen.loss(grid)
    assert power == pytest.approx(float(x.double().square().sum()), rel=1e-6) and clipped == 0
    assert noise == pytest.approx(float((round_rows(x, 7) - x).double().square().sum()), rel=1e-4)
    with pytest.raises(ModelError, match="stem becomes NaN or infinite on the calibration data"):
        seen.add(torch.tensor([[1.0, float("nan")]]), "stem")


def test_mistakes(quantized: nn.Module) -> None:
    with pytest.raises(UsageError, match="per_row is about linear layers, and the model has none; leave it out"):
        openwork.quantize(nn.Sequential(nn.Conv2d(3, 4, 3)), images(1), per_row=True)
    with pytest.raises(UsageError, match="is quantized already"):
        openwork.quantize(quantized, sentences(1), sentences(1)[0])


def test_layers_that_are_left_read_floats() -> None:
    small = openwork.quantize(
        attention(), sentences(), sentences()[0], per_row=True, leave=["query", "down"], measured=0
    )
    found = report_of(small)
    assert {layer.name for layer in found.layers} == {"key", "value", "out", "up"}
    assert {type(place.grid) for place in found.places} == {RowGrid} and len(found.places) == 3
    read = {node.target: node.args[0].target for node in small.graph.nodes if node.op == "call_module"}
    assert {name for name, source in read.items() if source is round_rows} == {"key", "value", "out", "up"}
