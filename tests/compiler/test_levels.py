"""Networks inside each other become one engine, whose calls choose among them."""

import copy
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import openwork
from openwork.compiler.drafts import Level
from openwork.compiler.pack import pack
from openwork.constraints.base import Sparsity
from openwork.constraints.block import Block
from openwork.constraints.unstructured import Unstructured
from openwork.errors import CompileError, EngineError, UsageError

PRUNED = nn.Conv2d | nn.Linear
NORMS = nn.BatchNorm1d | nn.BatchNorm2d


def network() -> nn.Module:
    """Convolutions of every kind, batch norm over images and features, linear layers over few samples."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.PReLU(32),
        nn.Conv2d(32, 24, 1, groups=2),
        nn.Flatten(),
        nn.Linear(24 * 36, 40),
        nn.BatchNorm1d(40),
        nn.SiLU(),
        nn.Linear(40, 10),
    ).eval()


def sparser(model: nn.Module, constraint: Sparsity, norms: bool = True) -> nn.Module:
    """A copy with fewer weights in every layer but the first; batch norm as if it had been trained at this level."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for at, layer in enumerate(model.modules()):
            if isinstance(layer, PRUNED) and at > 1 and len(layer.weight) % constraint.granule()[0] == 0:
                layer.weight.copy_(constraint.project(layer.weight))
            if isinstance(layer, NORMS) and norms:
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(-2, 2)
    return model.eval()


def nested(model: nn.Module, *constraints: Sparsity, norms: bool = True) -> list[nn.Module]:
    return list(itertools.accumulate(constraints, lambda m, c: sparser(m, c, norms), initial=model))[1:]


def error(engine: openwork.Engine, model: nn.Module, x: torch.Tensor, level: int) -> float:
    with torch.no_grad():
        wanted = model(x)
    return float((engine(x, level=level) - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tune", ["off", "fast"])
def test_every_level_says_what_its_network_says(batch: int, threads: int, tune: str, tmp_path) -> None:
    levels = nested(network(), *(Unstructured(sparsity=s) for s in (0.5, 0.8, 0.95)))
    x = torch.randn(batch, 3, 12, 12)
    engine = openwork.compile(levels[0], x, levels=levels[1:], threads=threads, tune=tune)
    assert engine.levels == 3
    engine.save(tmp_path / "nested.openwork")
    loaded = openwork.load(tmp_path / "nested.openwork", threads=3 - threads)
    for found in (engine, loaded, loaded.retune()):
        for level in (2, 1, 3, 1, 2, 2):  # nothing is left behind by the level before
            assert error(found, levels[level - 1], x, level) < 1e-5
    assert error(engine, levels[2], torch.randn(5, 3, 12, 12), 3) < 1e-5


def test_a_dense_network_with_sparse_ones_inside() -> None:
    model = network()
    (level,) = nested(model, Block(shape=(4, 1), sparsity=0.9), norms=False)
    x = torch.randn(1, 3, 12, 12)
    engine = openwork.compile(model, x, levels=[level], threads=1)
    assert max(error(engine, model, x, 1), error(engine, level, x, 2)) < 1e-5


def test_levels_that_are_all_the_same_are_refused() -> None:
    model, x = network(), torch.randn(1, 3, 12, 12)
    engine = openwork.compile(model, x, threads=1, tune="off")
    assert engine.levels == 1
    with pytest.raises(EngineError, match=r"level=2 is not in 1\.\.1"):
        engine(x, level=2)
    with pytest.raises(CompileError, match="all the same"):
        openwork.compile(model, x, levels=[copy.deepcopy(model)], tune="off")


def test_weights_are_held_once() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.Conv2d(128, 128, 3, padding=1)).eval()
    levels = nested(model, *(Block(shape=(4, 1), sparsity=s) for s in (0.5, 0.75, 0.9, 0.95)))
    x = torch.randn(1, 64, 8, 8)
    alone = openwork.compile(levels[0], x, threads=1, tune="off")
    engine = openwork.compile(levels[0], x, levels=levels[1:], threads=1, tune="off")
    assert engine.nbytes < 1.03 * alone.nbytes + 4000


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.sampled_from([1, 2, 4]),
    groups=st.sampled_from([1, 2]),
    count=st.integers(1, 3),
)
def test_the_beginning_of_each_block_is_a_level(seed: int, rows: int, groups: int, count: int) -> None:
    """Oracle: the matrices that lists up to each level's end stand for."""
    rng = np.random.default_rng(seed)
    out, columns = 8, 6
    matrix = rng.standard_normal((out, columns)).astype(np.float32) * (rng.random((out, columns)) < 0.8)
    keeps = list(itertools.accumulate([rng.random((out, columns)) < 0.6 for _ in range(count)], np.logical_and))
    keeps = [keep & (matrix != 0) for keep in keeps]
    levels = [Level(keep, np.zeros(out, np.float32), np.ones(out, np.float32)) for keep in keeps]
    packed = pack(matrix, np.zeros(out, np.float32), rows, groups, levels=levels)
    value = packed.value.reshape(-1, rows)
    for keep, ends in zip([matrix != 0, *keeps], [packed.start[1:], *packed.ends], strict=True):
        found = np.zeros((out, groups * columns), np.float32)
        for block, end in enumerate(ends):
            for tap in range(packed.start[block], end):
                found[block * rows : (block + 1) * rows, packed.index[tap]] += value[tap]
        wanted = np.zeros_like(found)
        for row in range(out):
            group = row * groups // out
            wanted[row, group * columns : (group + 1) * columns] = np.where(keep, matrix, 0)[row]
        np.testing.assert_array_equal(found, wanted)


def test_blocks_that_come_and_go_together_share_their_taps() -> None:
    matrix = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)
    keep = np.repeat(np.arange(24).reshape(2, 12) % 3 == 0, 4, axis=0)
    level = Level(keep, np.zeros(8, np.float32), np.ones(8, np.float32))
    packed = pack(matrix, np.zeros(8, np.float32), 4, levels=[level])
    assert packed.taps == 24 and (packed.ends - packed.start[:-1]).tolist() == [[4, 4]]


def broken(how: str) -> tuple[nn.Module, nn.Module]:
    model = network()
    (level,) = nested(model, Unstructured(sparsity=0.5))
    with torch.no_grad():
        if how == "more weights":
            model[3].weight[0, 0] = 0
            level[3].weight[0, 0] = 1
        elif how == "other weights":
            level[9].weight.add_(0.5 * (level[9].weight != 0))
        elif how == "other slope":
            level[6].weight.add_(1)
    return model, level


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("more weights", r"layer '3': level 2 has weights that level 1 has not"),
        ("other weights", r"layer '9': level 2 has other weights than level 1, not fewer of the same"),
        ("other slope", r"layer '\d' differs between levels in more than weights that are zero"),
    ],
)
def test_networks_that_do_not_lie_in_each_other_are_refused(how: str, words: str) -> None:
    model, level = broken(how)
    with pytest.raises(CompileError, match=words):
        openwork.compile(model, torch.randn(1, 3, 12, 12), levels=[level], tune="off")


def test_other_layers_and_recurrent_levels_are_refused() -> None:
    x = torch.randn(1, 4, 8)
    with pytest.raises(CompileError, match="different layers"):
        more = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
        openwork.compile(nn.Sequential(nn.Linear(8, 8)), x, levels=[more], tune="off")

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(8, 16, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.gru(x)[0]

    model = Last().eval()
    level = copy.deepcopy(model)
    with torch.no_grad():
        level.gru.weight_hh_l0.mul_(torch.rand(48, 16) < 0.5)
    with pytest.raises(CompileError, match="recurrent, which holds one level"):
        openwork.compile(model, x, levels=[level], tune="off")
    with pytest.raises(UsageError, match="sparser copies"):
        openwork.compile(model, x, levels=["sparse"], tune="off")  # type: ignore[list-item]


@pytest.mark.parametrize("level", [0, 4, -1])
def test_levels_that_there_are_not_are_named(level: int) -> None:
    levels = nested(network(), *(Unstructured(sparsity=s) for s in (0.5, 0.8, 0.95)))
    x = torch.randn(1, 3, 12, 12)
    engine = openwork.compile(levels[0], x, levels=levels[1:], threads=1, tune="off")
    with pytest.raises(EngineError, match=rf"level={level} is not in 1\.\.3"):
        engine(x, level=level)
