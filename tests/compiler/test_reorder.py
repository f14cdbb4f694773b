"""Rows that share taps are found, packed together, and stored where they belong."""

import copy
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import Calls, assert_agrees, compiled
from torch import Tensor, nn

import openwork
from openwork.compiler import candidates, reorder
from openwork.compiler.candidates import Choice
from openwork.compiler.drafts import Weights
from openwork.compiler.pack import union_taps
from openwork.compiler.reorder import order, similar


def scattered(out: int, columns: int, density: float, seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).random((out, columns)) < density).astype(np.float32)


def shuffled(out: int, columns: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows in blocks that share columns, and the same in another order."""
    blocks = np.repeat(scattered(out // rows, columns, 0.1, seed), rows, axis=0)
    return blocks, blocks[np.random.default_rng(seed + 1).permutation(out)]


def weights(matrix: np.ndarray, groups: int = 1) -> Weights:
    return Weights(matrix, np.zeros(len(matrix), np.float32), groups, 1)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.sampled_from([2, 4, 8]), st.integers(1, 3),
    st.sampled_from([0.0, 0.2, 0.6]), st.integers(0, 99), st.integers(2, 9),
)  # fmt: skip
def test_an_order_is_a_permutation_within_groups_that_never_costs_taps(
    per_group, columns, rows, groups, density, seed, compared
):
    if groups > 1:
        per_group *= rows
    matrix = scattered(groups * per_group, columns, density, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reorder, "COMPARED", compared * rows)
        found = similar(matrix, rows, groups)
        chosen = order(weights(matrix, groups), rows)
    for g in range(groups):
        assert sorted(found[g * per_group : (g + 1) * per_group]) == list(range(g * per_group, (g + 1) * per_group))
    if chosen is not None:
        assert chosen.taps == union_taps(matrix[chosen.rows], rows) < union_taps(matrix, rows)


@pytest.mark.parametrize("rows", [2, 4, 8])
@pytest.mark.parametrize("out", [64, reorder.COMPARED + 64])
def test_shuffled_blocks_are_found_again(rows, out):
    blocks, mixed = shuffled(out, 96, rows)
    least = union_taps(blocks, rows)
    # more rows than are compared with each other: those on both sides of a border may be torn apart
    assert union_taps(mixed[similar(mixed, rows)], rows) <= least * (1 if out == 64 else 1.05)
    assert union_taps(mixed, rows) > 1.4 * least
    assert order(weights(blocks), rows) is None, "what lies well is left as it is"


def test_layers_that_are_nearly_dense_are_left_alone():
    assert order(weights(scattered(32, 64, 0.8, 0)), 4) is None
    assert order(weights(np.ones((8, 8), np.float32)), 4) is None


def test_an_order_of_a_large_layer_takes_less_than_a_second():
    matrix = scattered(512, 4608, 0.1, 0)
    begin = time.perf_counter()
    similar(matrix, 4)
    assert time.perf_counter() - begin < 1


def reordered_everywhere(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """From now on untuned layers are reordered for blocks of `rows` wherever that is possible."""
    guess = candidates.first

    def chosen(draft, base, threads, isa):
        for choice in candidates._packings(draft, base, isa):
            if choice.reordered and choice.rows == rows:
                return next(candidates.tiles(draft, base, choice, threads, isa))
        return guess(draft, base, threads, isa)

    monkeypatch.setattr("openwork.compiler.tune.first", chosen)
    monkeypatch.setattr(reorder, "WORTHWHILE", 1.0)


def mixed_up(model: nn.Module, rows: int) -> nn.Module:
    """Zeros in every convolution so that shuffled rows of each group share columns."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.data
            for g, part in enumerate(weight.view(layer.groups, -1, weight[0].numel())):
                part *= torch.from_numpy(shuffled(len(part), part.shape[1], rows, seed=g)[1])
    return model.eval()


def of_everything(layers: nn.ModuleList, x: Tensor) -> Tensor:
    """A shortcut, one slope a channel, groups, rows that fill no block, strides."""
    first, second, grouped, odd, strided, slope = layers
    x = torch.relu(first(x))
    x = torch.relu(second(x) + x)
    x = slope(grouped(x))
    return strided(torch.sigmoid(odd(x)))


def everything(rows: int) -> nn.Module:
    layers = [
        nn.Conv2d(16, 32, 3, padding=1),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.Conv2d(32, 64, 3, padding=1, groups=2),
        nn.Conv2d(64, 24 * rows // 8 * 2, 1),
        nn.Conv2d(24 * rows // 8 * 2, 32, 3, 2, padding=1),
        nn.PReLU(64),
    ]
    layers[-1].weight.data = torch.linspace(-0.5, 0.9, 64)
    return mixed_up(Calls(of_everything, *layers), rows)


@pytest.mark.parametrize("rows", [2, 4, 8])
@pytest.mark.parametrize(("threads", "batch"), [(1, 1), (2, 1), (2, 3)])
def test_outputs_are_pytorchs_in_whatever_order_rows_are_packed(monkeypatch, rows, threads, batch):
    reordered_everywhere(monkeypatch, rows)
    model = everything(rows)
    engine = compiled(model, (batch, 16, 20, 20), threads=threads)
    layers = [s for s in engine._spec.steps if s.op == "taps"]
    moved = [row for row in engine.explain(repeats=1).rows if "rows that share taps lie side by side" in row["why"]]
    assert len(moved) >= 4 and len(layers) >= 4
    assert any("slope" in s.arrays for s in layers)
    assert any("slabs" in s.fields for s in layers) == (threads > 1 and batch == 1)
    assert_agrees(engine, model, (batch, 16, 20, 20))


def test_rows_that_fill_no_block_are_packed_last(monkeypatch):
    reordered_everywhere(monkeypatch, 4)
    model = nn.Sequential(nn.Conv2d(16, 30, 3, padding=1), nn.ReLU(), nn.Conv2d(30, 30, 3, padding=1)).eval()
    for layer in (model[0], model[2]):
        mixed = shuffled(32, layer.weight[0].numel(), 4)[1][:30]
        layer.weight.data.view(30, -1).mul_(torch.from_numpy(mixed))
    engine = compiled(model, (1, 16, 12, 12))
    assert "side by side" in str([row["why"] for row in engine.explain(repeats=1).rows])
    assert_agrees(engine, model, (1, 16, 12, 12))


def test_levels_move_with_their_rows(monkeypatch):
    reordered_everywhere(monkeypatch, 4)
    model = mixed_up(nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 1)), 4)
    level = copy.deepcopy(model)
    for layer in (level[0], level[2]):
        layer.weight.data[torch.rand(layer.weight.shape) < 0.5] = 0
        layer.bias.data.normal_()
    x = torch.randn(1, 16, 12, 12)
    engine = openwork.compile(model, x, levels=[level], threads=1, tune="off")
    assert "side by side" in str([row["why"] for row in engine.explain(repeats=1).rows])
    for number, network in enumerate((model, level), 1):
        with torch.no_grad():
            torch.testing.assert_close(engine(x, level=number), network(x), rtol=1e-4, atol=1e-5)


def test_the_clock_decides_and_an_engine_is_retuned_as_it_was_packed(tmp_path):
    """Shuffled pairs of rows cost twice the loads in the order in which they lie."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1))
    mixed_up(model, 2)
    engine = compiled(model, (1, 64, 28, 28), tune="fast")
    row = next(row for row in engine.explain(repeats=1).rows if row["op"].startswith("conv"))
    assert any(t["reordered"] for t in row["tried"])
    assert "rows that share taps lie side by side" in row["why"]
    engine.save(tmp_path / "m.openwork")
    again = openwork.load(tmp_path / "m.openwork", threads=1, retune=True)
    x = torch.randn(1, 64, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(again(x.numpy())), model(x), rtol=1e-4, atol=1e-5)


def test_choices_that_differ_in_order_only_are_packed_apart():
    plain = Choice("taps", 4, (1,))
    assert plain.packing != Choice("taps", 4, (1,), reordered=True).packing
