"""Block-circulant matrices in whole networks: found from the numbers alone, right, and counted honestly."""

import numpy as np
import pytest
import torch
from torch import nn

import openwork
from openwork.compiler.circulant import block_of
from openwork.constraints.circulant import Circulant
from openwork.engine import _native


def circulant(outputs: int, inputs: int, block: int) -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    layer.weight.data = Circulant(block=block).project(layer.weight.data)
    return layer.eval()


def kernels_of(engine: openwork.Engine) -> list[str]:
    return [row["kernel"] for row in engine.explain(repeats=1).rows if row["op"] == "linear"]


@pytest.mark.parametrize("block", [2, 4, 8, 12, 16, 32, 64, 128])
def test_the_largest_block_is_found_from_the_numbers(block: int) -> None:
    matrix = circulant(130, 140, block).weight.data.numpy()
    assert block_of(matrix) == (block if block in (4, 8, 16, 32, 64, 128) else 0)
    matrix[-1, -2] += 1e-6
    assert block_of(matrix) == 0


def test_matrices_that_are_none_are_not_taken_for_one() -> None:
    assert block_of(np.random.default_rng(0).random((64, 64), np.float32)) == 0
    assert block_of(circulant(64, 64, 16).weight.data.numpy()[:, 1:]) == 0
    assert block_of(np.ones((3, 64), np.float32)) == 0


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(
    ("outputs", "inputs", "block"), [(512, 512, 16), (300, 520, 8), (256, 260, 64), (130, 700, 128)]
)
def test_a_layer_is_as_in_pytorch(isa: str, batch: int, outputs: int, inputs: int, block: int) -> None:
    model = nn.Sequential(circulant(outputs, inputs, block), nn.ReLU(), nn.Linear(outputs, 3)).eval()
    x = torch.randn(batch, inputs)
    engine = openwork.compile(model, x, threads=1, tune="off")
    assert kernels_of(engine)[0].startswith(f"circulant_f32_{block}x") and not kernels_of(engine)[1].startswith("circ")
    engine = openwork.Engine(engine.artifact, 1, isa)
    with torch.no_grad():
        expected = model(x)
    assert (engine(x) - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_the_clock_decides_and_both_are_told() -> None:
    layer = circulant(512, 512, 8)
    x = torch.randn(1, 512)
    engine = openwork.compile(layer, x, threads=1, tune="fast")
    (row,) = (row for row in engine.explain(repeats=1).rows if row["op"] == "linear")
    tried = {t["kernel"].split("_")[0] for t in row["tried"]}
    assert tried >= {"rows", "circulant"}
    if row["kernel"].startswith("circulant"):
        assert "circulant won" in row["why"] and row["multiply_adds"] == 64 * 64 * 14
    torch.testing.assert_close(engine(x), layer(x), rtol=1e-4, atol=1e-4)


def test_layers_of_one_shape_are_told_apart() -> None:
    """A search is shared by layers that are alike; a circulant one and another are not."""
    model = nn.Sequential(circulant(256, 256, 32), nn.Linear(256, 256), circulant(256, 256, 64)).eval()
    x = torch.randn(1, 256)
    engine = openwork.compile(model, x, threads=1, tune="fast")
    torch.testing.assert_close(engine(x), model(x), rtol=1e-4, atol=1e-4)
    assert "circulant" not in kernels_of(engine)[1]


def test_what_is_not_finite_is_as_in_pytorch() -> None:
    layer = circulant(200, 256, 16)
    engine = openwork.compile(layer, torch.randn(2, 256), threads=1, tune="off")
    assert kernels_of(engine)[0].startswith("circulant")
    clean = torch.randn(2, 256)
    before = engine(clean)
    for value in (torch.nan, torch.inf, -torch.inf):
        x = clean.clone()
        x[1, 7] = value
        with torch.no_grad():
            torch.testing.assert_close(engine(x), layer(x), rtol=1e-4, atol=1e-4, equal_nan=True)
    assert torch.equal(engine(clean), before)


def test_an_engine_is_fitted_to_the_machine_again(tmp_path) -> None:
    layer = circulant(256, 256, 8)
    x = torch.randn(3, 256)
    openwork.compile(layer, x, threads=1, tune="off").save(tmp_path / "a.openwork")
    engine = openwork.load(tmp_path / "a.openwork", retune=True)
    torch.testing.assert_close(engine(x), layer(x), rtol=1e-4, atol=1e-4)
