"""`openwork.quantize`: numbers on grids, places where they belong, files, and mistakes in one line."""

import copy
import json
import math
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import attention, error, images, residual, sentences
from torch import nn

import openwork
from openwork.constraints.levels import Levels
from openwork.errors import DataError, ModelError, OpenworkNotice, RunError, UsageError
from openwork.quantization import folder
from openwork.quantization.network import captured, layers
from openwork.quantization.quantize import report_of
from openwork.quantization.report import Report, decibels
from openwork.quantization.rounding import Grid
from openwork.quantization.simulate import Rounded, correct_biases
from openwork.quantization.weights import on_grid


@pytest.fixture(scope="module")
def quantized() -> nn.Module:
    return openwork.quantize(residual(), images(), measured=4)


def rounded_activations(network: Any) -> list[tuple[float, int, int]]:
    nodes = [n for n in network.graph.nodes if n.target is torch.fake_quantize_per_tensor_affine]
    assert all(n.args[2] == 0 for n in nodes)
    return [(n.args[1], n.args[3], n.args[4]) for n in nodes]


def test_weights_lie_on_grids_and_outputs_stay_close(quantized: nn.Module) -> None:
    model, x = residual(), images(1, seed=5)[0]
    for layer in report_of(quantized).layers:
        assert Levels(bits=8, per="channel").violations(quantized.get_submodule(layer.name).weight) == 0
    y, z = model(x), quantized(x)
    assert 0 < error(z, y) < 0.03
    places = rounded_activations(quantized)
    assert len(places) == 7 and places[0][1:] == (-127, 127), "images have both signs"
    assert {p[1:] for p in places[1:]} == {(0, 255), (-127, 127)}, "after ReLU there is one"


def test_the_model_is_left_as_it_was() -> None:
    model = residual().train()
    before = copy.deepcopy(model.state_dict())
    openwork.quantize(model, images(1), equalize=True, measured=0)
    assert model.training and all(torch.equal(before[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bits(bits: int) -> None:
    network = openwork.quantize(residual(), images(1), weight_bits=bits, activation_bits=bits, measured=0, saturation=1)
    top = 2 ** (bits - 1) - 1
    assert {p[1:] for p in rounded_activations(network)} == {(-top, top), (0, 2**bits - 1)}
    weight = network.get_submodule("conv2").weight
    assert all(len(row.unique()) <= 2 * top + 1 for row in weight.flatten(1))


def test_zeros_of_pruning_stay() -> None:
    model = residual()
    mask = torch.rand(model.conv2.weight.shape) < 0.3
    model.conv2.weight.data.mul_(mask)
    for weights in ("mse", "max"):
        small = openwork.quantize(model, images(1), weights=weights, measured=0)  # type: ignore[arg-type]
        assert not small.get_submodule("conv2").weight[~mask].any()


@pytest.mark.parametrize("how", ["mse", "max"])
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_on_grids(how: Any, bits: int) -> None:
    torch.manual_seed(0)
    w = torch.randn(300, 3, 3, 3) * torch.logspace(-3, 3, 300).view(-1, 1, 1, 1)
    w[7] = 0
    z = on_grid(w, bits, how)
    assert z.shape == w.shape and Levels(bits=bits, per="channel").violations(z) == 0
    interval = w.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
    if how == "max":
        assert ((w - z).flatten(1).abs().amax(1) <= 0.5001 * interval).all()
    else:
        assert float((w - z).square().sum()) <= float((w - on_grid(w, bits, "max")).square().sum())


def test_bias_correction_makes_the_mean_error_zero() -> None:
    network, batches = captured(residual(), (images()[0],)), [(x,) for x in images()]
    chosen = layers(network)
    rounded = [
        Rounded(
            layer,
            on_grid(layer.module.weight, 3, "max"),
            layer.module.bias.detach().clone(),
            Grid(scale=0.25, low=-7, high=7),
        )
        for layer in chosen
    ]
    corrected = correct_biases(network, rounded, batches, lambda n: None)
    stem, before = corrected[0], rounded[0]
    x = torch.cat([b[0] for b in batches])
    exact = stem.layer.module(x)
    assert (before(x) - exact).mean((0, 2, 3)).abs().max() > 1e-3
    assert (stem(x) - exact).mean((0, 2, 3)).abs().max() < 1e-5


def test_attention_with_several_inputs() -> None:
    model, batches = attention(), sentences()
    small = openwork.quantize(model, batches, batches[0], measured=4)
    ids, mask = batches[0]
    y, z = model(ids[:3], mask[:3]), small(ids[:3], mask[:3])
    assert 0 < error(z, y) < 0.05


def test_it_is_copied_pickled_exported_and_takes_any_batch(quantized: nn.Module) -> None:
    x = torch.randn(5, 3, 8, 8)
    y = quantized(x)
    for other in (copy.deepcopy(quantized), pickle.loads(pickle.dumps(quantized))):
        assert torch.equal(other(x), y) and report_of(other) == report_of(quantized)
    exported = torch.export.export(quantized, (x[:1],))
    torch.testing.assert_close(exported.module()(x[:1]), y[:1])
    assert quantized.train().eval()(x[:2]).shape == (2, 5)


def test_the_engine_computes_what_it_simulates(quantized: nn.Module) -> None:
    x = torch.randn(1, 3, 8, 8)
    engine = openwork.compile(quantized, x, threads=1, tune="off")
    assert error(torch.from_numpy(engine(x.numpy())), quantized(x)) < 0.02


@pytest.mark.parametrize("observer", ["minmax", "entropy", {"kind": "percentile", "percent": 99.0}])
def test_observers_by_name_and_by_settings(observer: Any) -> None:
    found = report_of(openwork.quantize(residual(), images(1), observer=observer, measured=0, saturation=0.5))
    assert found.settings["observer"]["kind"] in str(observer)
    assert all(layer.output_db is None for layer in found.layers)


def test_figures(quantized: nn.Module) -> None:
    found = report_of(quantized)
    assert found.layers[0].name == "stem" and len(found.layers) == 7
    assert found.samples == 24 and found.any_batch and found.left == () and found.output_db is not None
    assert all(layer.weight_db > 25 and layer.input_db > 25 for layer in found.layers)
    # Alone each layer does less than all of them together, about.
    assert min(layer.output_db or 0 for layer in found.worst()) > found.output_db - 3
    assert found.worst()[0].output_db == min(layer.output_db or 0 for layer in found.layers)
    assert "outputs with it alone" in str(found) and "Conv2d 16x1x3x3" in str(found)
    assert type(found).from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_the_layer_to_blame_is_found() -> None:
    model = residual()
    for small in (model.depth.weight, model.depth.bias):
        small.data[0] /= 300
    model.point.weight.data[:, 0] *= 300  # the same network, but this column makes all others vanish beside it
    found = report_of(openwork.quantize(model, images(1), weight_bits=4, measured=4))
    assert found.worst()[0].name == "point"
    equalized = report_of(openwork.quantize(model, images(1), weight_bits=4, measured=4, equalize=True))
    assert equalized.equalized == (("conv1", "conv2"), ("depth", "point"))
    assert (equalized.output_db or 0) > (found.output_db or 0) + 3


def test_layers_left_in_float32() -> None:
    model = residual()
    small = openwork.quantize(model, images(1), leave=["head"], measured=0)
    assert torch.equal(small.get_submodule("head").weight, model.head.weight)
    assert report_of(small).left == (("head", "as was asked for"),)


def test_a_saturating_layer_is_named_with_the_fix() -> None:
    with pytest.warns(
        OpenworkNotice, match=r"conv1: 2\d % of its input lies more than a step beyond .* choose observer minmax"
    ):
        small = openwork.quantize(residual(), images(1), observer={"kind": "percentile", "percent": 75}, measured=0)
    assert any(note.startswith("conv1: ") for note in report_of(small).notes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        openwork.quantize(residual(), images(1), observer="minmax", measured=0)


def test_saved_and_loaded_it_computes_the_same(quantized: nn.Module, tmp_path: Path) -> None:
    folder.save(quantized, tmp_path / "int8", {"model": "mine"})
    assert sorted(p.name for p in (tmp_path / "int8").iterdir()) == ["model.safetensors", "quantization.json"]
    again, x = folder.load(tmp_path / "int8", residual(seed=3)), images(1)[0]
    assert torch.equal(again(x), quantized(x)) and report_of(again) == report_of(quantized)
    larger = folder.load(tmp_path / "int8", residual(), (torch.randn(2, 3, 8, 8),))
    assert torch.equal(larger(x), quantized(x))


def test_ratios_that_are_infinite_are_saved_with_their_sign(quantized: nn.Module, tmp_path: Path) -> None:
    found = report_of(quantized)
    for ratio, said in ((math.inf, "exact"), (-math.inf, "nothing left"), (12.0, "12.0")):
        document = json.loads(json.dumps(replace(found, output_db=ratio).to_dict(), allow_nan=False))
        again = Report.from_dict(document)
        assert again.output_db == ratio and decibels(again.output_db) == said


def test_damaged_and_foreign_folders_are_refused(quantized: nn.Module, tmp_path: Path) -> None:
    folder.save(quantized, tmp_path / "int8")
    with pytest.raises(RunError, match="was quantized from another model than this Attention"):
        folder.load(tmp_path / "int8", attention(), sentences()[0])
    (tmp_path / "int8" / "quantization.json").write_text("{}")
    with pytest.raises(RunError, match="is damaged"):
        folder.load(tmp_path / "int8", residual())
    with pytest.raises(RunError, match="holds no quantized network"):
        folder.load(tmp_path, residual())
    with pytest.raises(UsageError, match="was not made by openwork"):
        folder.save(residual(), tmp_path / "x")


def test_a_fixed_batch_is_respected() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x).view(2, 4)

    found = report_of(openwork.quantize(Fixed(), [torch.randn(5, 4)], torch.randn(2, 4), observer="minmax"))
    assert not found.any_batch and found.samples == 4
    with pytest.raises(DataError, match="takes batches of 2 and there are 1 calibration samples; give at least 2"):
        openwork.quantize(Fixed(), [torch.randn(1, 4)], torch.randn(2, 4))


def not_a_number() -> torch.Tensor:
    x = torch.randn(2, 3, 8, 8)
    x[0, 0, 0, 0] = float("nan")
    return x


def endless() -> Iterator[torch.Tensor]:
    while True:
        yield torch.randn(4, 3, 8, 8)


def test_no_more_samples_are_read_than_asked_for() -> None:
    assert report_of(openwork.quantize(residual(), endless(), samples=10, measured=0)).samples == 10


def test_labels_are_passed_over() -> None:
    x = images(1)[0]
    small = openwork.quantize(residual(), [(x, torch.arange(8))], measured=0)
    assert torch.equal(small(x), openwork.quantize(residual(), [x], measured=0)(x))


@pytest.mark.parametrize(
    ("calibration", "said"),
    [
        ([], "the calibration data is empty; give 100 to 500 samples"),
        ([torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 9)], r"batch 1 has shape \[2, 3, 8, 9\], the model takes"),
        ([torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)], "all 4 calibration samples are constant, 0 everywhere"),
        ([not_a_number()], "batch 0 holds 1 values that are NaN or infinite"),
        ([torch.randn(2, 3, 8, 8).double()], "batch 0 is torch.float64, the model takes torch.float32"),
        (["x"], "batch 0 is str, the model takes 1 tensors"),
        ([torch.randn(0, 3, 8, 8)], "batch 0 has no samples"),
    ],
    ids=["empty", "shape", "constant", "nan", "type", "no tensor", "no samples"],
)
def test_wrong_calibration_data(calibration: list[Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        openwork.quantize(residual(), calibration, torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight_bits": 0}, r"weight_bits: 0 is not in 2..8; choose 2 to 8 bits, or leave layers in float32"),
        ({"activation_bits": 9}, r"activation_bits: 9 is not in 2..8"),
        ({"observer": "mean"}, r"unknown observer 'mean'.*known: entropy, minmax, mse, percentile"),
        ({"leave": ["conv3"]}, "unknown layer 'conv3'; did you mean conv2"),
        (
            {"leave": ["stem", "conv1", "conv2", "down", "depth", "point", "head"]},
            "leave names every layer of the model; leave out fewer",
        ),
        ({"samples": 0}, "samples"),
        ({"weights": "min"}, "weights"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_wrong_settings(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        openwork.quantize(residual(), images(1), **settings)


def test_other_mistakes(quantized: nn.Module) -> None:
    with pytest.raises(UsageError, match="calibration is a Tensor; give an iterable of batches"):
        openwork.quantize(residual(), torch.randn(2, 3, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="model is a int"):
        openwork.quantize(3, images(1))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is quantized already"):
        openwork.quantize(quantized, images(1))
    diverged = residual()
    diverged.bn1.weight.data.fill_(3e38)
    with pytest.raises(ModelError, match="becomes NaN or infinite on the calibration data"):
        openwork.quantize(diverged, images(1))


def test_progress_is_told() -> None:
    said: list[tuple[str, int, int]] = []
    openwork.quantize(residual(), images(2), measured=1, progress=lambda *step: said.append(step))
    stages = list(dict.fromkeys(what for what, _, _ in said))
    assert stages == ["calibrating", "rounding weights", "correcting biases", "measuring layers"]
    assert [(done, total) for what, done, total in said if what == "calibrating"] == [(1, 2), (2, 2)]


def test_the_residual_stream_that_layer_norm_reads_is_not_rounded() -> None:
    class PostNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.LayerNorm(16), nn.LayerNorm(16)
            self.layer, self.head = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            y: torch.Tensor = self.head(self.norm(x + self.layer(x)))
            return y

    torch.manual_seed(0)
    model, x = PostNorm(), torch.randn(64, 16)
    small = openwork.quantize(model, [x], observer="minmax", correct_bias=False)
    layer, head = ({p.value: p.grid for p in report_of(small).places}[layer.input] for layer in report_of(small).layers)
    stream = model.first(x)
    read = nn.functional.linear(layer.round(stream), small.get_submodule("layer").weight, model.layer.bias)
    normed = head.round(model.norm(stream + read))
    y = nn.functional.linear(normed, small.get_submodule("head").weight, model.head.bias)
    torch.testing.assert_close(small(x), y)


def test_biases_are_corrected_only_where_outputs_gain() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    x = torch.randn(64, 8)
    kept = openwork.quantize(model, [x], weight_bits=3, correct_bias=False)
    found = {
        samples: openwork.quantize(model, batches, weight_bits=3)
        for samples, batches in {"alike": [x], "odd": [x[:32], x[32:] + 100]}.items()
    }
    for small in found.values():
        notes = [note for note in report_of(small).notes if "biases are as they were" in note]
        same = torch.equal(small.get_submodule("2").bias, model[2].bias)
        assert same == bool(notes)
    assert not torch.equal(found["alike"].get_submodule("2").bias, model[2].bias)
    assert torch.equal(found["odd"].get_submodule("2").bias, model[2].bias)
    assert error(found["alike"](x), model(x)) < error(kept(x), model(x))
