"""What an engine promises: any batch, any memory layout, results of one's own, clear errors, a true explanation."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from small_models import Calls, assert_agrees, compiled, lively
from torch import nn

import openwork
from openwork.compiler.reorder import similar
from openwork.engine import _native
from openwork.engine.explain import COLUMNS
from openwork.errors import EngineError


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


class Block(nn.Module):
    """A residual block as ResNets have it."""

    def __init__(self, into, out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.down = nn.Conv2d(into, out, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + self.down(x)).relu()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), Block(8, 8, 1), Block(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    model = lively(nn.Sequential(*layers, nn.Linear(16, 5)), sparsity=0.3)
    for module in model.modules():  # and zeros in whole blocks of 4x1
        if isinstance(module, nn.Conv2d):
            matrix = module.weight.data.view(module.out_channels // 4, 4, -1)
            matrix[(torch.rand(len(matrix), matrix.shape[2]) < 0.7).unsqueeze(1).expand_as(matrix)] = 0
    return model


@pytest.fixture(scope="module")
def engine(model):
    return compiled(model, (2, 3, 9, 9))


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, 3, 9, 9)).astype(np.float32)


def reference(model, x):
    with torch.no_grad():
        return model(torch.from_numpy(np.ascontiguousarray(x))).numpy()


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


# ---- inputs ----


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 7])
def test_any_batch_works(engine, model, batch):
    assert_agrees(engine, model, (batch, 3, 9, 9))


def test_of_no_samples_there_are_no_outputs(engine, model):
    none = engine(torch.zeros(0, 3, 9, 9))
    assert none.shape == model(torch.zeros(0, 3, 9, 9)).shape == (0, 5) and none.dtype == torch.float32


def test_any_memory_layout_works_and_is_left_as_it_was(engine, model, x):
    read_only = x.copy()
    read_only.flags.writeable = False
    wide = np.zeros((2, 3, 9, 18), np.float32)
    wide[..., ::2] = x
    unaligned = np.frombuffer(b"\0" + x.tobytes(), np.float32, offset=1).reshape(x.shape)
    channels_last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    backwards = x[::-1].copy()[::-1]
    wanted = reference(model, x)
    for odd in (read_only, wide[..., ::2], unaligned, channels_last, backwards, np.asfortranarray(x)):
        before = odd.copy()
        close(engine(odd), wanted)
        np.testing.assert_array_equal(odd, before)


def test_kind_of_result_follows_the_first_input(engine, x):
    assert type(engine(x)) is np.ndarray
    tensor = torch.from_numpy(x).requires_grad_()
    result = engine(tensor)
    assert type(result) is torch.Tensor and not result.requires_grad
    np.testing.assert_array_equal(result.numpy(), engine(x))
    two = compiled(Calls(lambda own, a, b: (a + b, b.relu())), (1, 2, 3, 3), (1, 2, 3, 3))
    a = np.ones((1, 2, 3, 3), np.float32)
    assert all(type(y) is np.ndarray for y in two(a, torch.from_numpy(a)))
    assert all(type(y) is torch.Tensor for y in two(torch.from_numpy(a), a))
    assert isinstance(two(a, a), tuple)


ZEROS = np.zeros((2, 3, 9, 9), np.float32)
TAKES = r"the engine takes \(any batch, 3, 9, 9\)"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), r"got 0 inputs, the model takes 1: \['input'\]"),
        ((ZEROS, ZEROS), r"got 2 inputs, the model takes 1"),
        ((ZEROS.astype(np.float64),), "input input has type float64, the engine takes float32; convert it"),
        ((ZEROS.astype(">f4"),), "has type >f4"),
        ((torch.zeros(2, 3, 9, 9, dtype=torch.bfloat16),), r"has type torch\.bfloat16"),
        ((torch.zeros(2, 3, 9, 9, dtype=torch.int64),), r"has type int64"),
        ((ZEROS.tolist(),), "input input is a list, the engine takes a NumPy array or a tensor"),
        ((None,), "input input is a NoneType"),
        ((ZEROS[:, :2],), r"has shape \(2, 2, 9, 9\), " + TAKES),
        ((ZEROS[..., None],), TAKES),
        ((ZEROS[0],), TAKES),
        ((np.float32(1),), "is a float32"),
    ],
)
def test_wrong_inputs_are_named(engine, inputs, message):
    with pytest.raises(EngineError, match=message):
        engine(*inputs)


def test_inputs_of_different_batches():
    engine = compiled(Calls(lambda own, a, b: a + b), (2, 2, 3, 3), (2, 2, 3, 3))
    with pytest.raises(EngineError, match=r"different batch sizes: \[3, 1\]"):
        engine(np.zeros((3, 2, 3, 3), np.float32), np.zeros((1, 2, 3, 3), np.float32))


def test_without_a_common_batch_axis_only_the_compiled_shapes_run():
    for function in (lambda own, a: own[0](a).sum(), lambda own, a: own[0](a).mean(0)):
        model = Calls(function, nn.Conv2d(2, 3, 1))
        engine = compiled(model, (4, 2, 5, 5))
        assert_agrees(engine, model, (4, 2, 5, 5))
        with pytest.raises(EngineError, match="share no batch axis: only the compiled shapes run"):
            engine(np.zeros((2, 2, 5, 5), np.float32))
    model = Calls(lambda own, a, b: own[0](a) + b, nn.Conv2d(2, 3, 1))
    assert_agrees(compiled(model, (4, 2, 5, 5), (1, 3, 1, 1)), model, (4, 2, 5, 5), (1, 3, 1, 1))


# ---- results ----


def test_results_belong_to_the_caller(engine, x):
    first = engine(x)
    kept = first.copy()
    second = engine(2 * x)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, kept)
    first[:] = 7
    np.testing.assert_array_equal(engine(x), kept)


@pytest.mark.parametrize("isa", _native.isas())
def test_every_instruction_set_gives_the_same_from_one_file(isa, engine, model, x, tmp_path):
    engine.save(tmp_path / "a.openwork")
    loaded = openwork.load(tmp_path / "a.openwork", threads=2, isa=isa)
    assert loaded.isa == isa and loaded.threads == 2
    close(loaded(x), reference(model, x))
    compiled(model, (2, 3, 9, 9), isa=isa).save(tmp_path / "b.openwork")
    close(openwork.load(tmp_path / "b.openwork", threads=1)(x), reference(model, x))


def test_threads_do_not_change_a_bit(model, x, tmp_path):
    compiled(model, (2, 3, 9, 9), threads=4).save(tmp_path / "a.openwork")
    wanted = openwork.load(tmp_path / "a.openwork", threads=1)(x)
    for threads in (2, 3, 4):
        engine = openwork.load(tmp_path / "a.openwork", threads=threads)
        for _ in range(20):
            np.testing.assert_array_equal(engine(x), wanted)


def test_calls_from_many_threads_do_not_disturb_each_other():
    """Also where values wait in the arena and in PyTorch between two native segments."""
    model = lively(
        Calls(
            lambda own, x: own[1](own[0](x).cos()) + own[0](x).sin(), nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        )
    )
    engine = compiled(model, (1, 2, 6, 6), threads=2)

    def right(seed):
        x = np.random.default_rng(seed).standard_normal((3, 2, 6, 6)).astype(np.float32)
        wanted = reference(model, x)
        return all(np.abs(engine(x) - wanted).max() < 1e-4 for _ in range(30)) and bool(engine.explain(repeats=1).rows)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(right, range(8)))


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.5, "2", True])
def test_wrong_threads_are_named(engine, threads, tmp_path):
    engine.save(tmp_path / "a.openwork")
    with pytest.raises(EngineError, match=rf"threads={re.escape(repr(threads))} is not a whole number in 1\.\.1024"):
        openwork.load(tmp_path / "a.openwork", threads=threads)


def test_a_wrong_instruction_set_is_named(engine, tmp_path):
    engine.save(tmp_path / "a.openwork")
    with pytest.raises(EngineError, match=r"isa='neon9' does not run on this machine; available: auto, .*reference"):
        openwork.load(tmp_path / "a.openwork", isa="neon9")


# ---- what it says of itself ----


def test_facts(engine):
    assert [(i.shape, i.dtype) for i in engine.inputs] == [((2, 3, 9, 9), "float32")]
    assert [(o.shape, o.dtype) for o in engine.outputs] == [((2, 5), "float32")]
    assert engine.threads == 1 and engine.isa == _native.isas()[0]
    assert engine.provenance["name"] == "Sequential" and engine.provenance["max_relative_error"] < 1e-4
    assert len(engine.time(repeats=3, warmup=1)) == 3
    assert repr(engine).startswith("Engine(inputs (2, 3, 9, 9), ")


def test_explain_tells_every_layer_by_its_name_and_counts_its_weights(engine, model):
    explanation = engine.explain(repeats=2)
    rows = {row["name"]: row for row in explanation.rows if row["weights"]}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    assert rows.keys() == layers.keys()
    for name, layer in layers.items():
        row, weight = rows[name], layer.weight
        assert row["op"] == ("conv" if weight.ndim == 4 else "linear")
        assert (row["weights"], row["nonzero"]) == (weight.numel(), int((weight != 0).sum()))
        assert row["sparsity"] == pytest.approx(float((weight == 0).float().mean()))
        assert row["kernel"].endswith(engine.isa) and row["microseconds"] > 0 and row["gflops"] > 0
        assert row["why"].split(";")[0] == "not tuned: the cost model's choice"


def test_taps_are_exactly_the_blocks_that_hold_a_weight(engine, model):
    """Zeros are skipped: a block of rows walks the columns in which one of its weights is not zero, and no other."""
    layers = dict(model.named_modules())
    checked = 0
    for row in engine.explain(repeats=1).rows:
        if row["op"] != "conv":
            continue
        rows = int(re.match(r"taps_f32_(\d+)x", row["kernel"])[1])
        matrix = layers[row["name"]].weight.detach().flatten(1).numpy()
        if "side by side" in row["why"]:
            matrix = matrix[similar(matrix, rows)]
        blocks = [matrix[i : i + rows] for i in range(0, len(matrix), rows)]
        assert row["taps"] == sum(bool(column.any()) for block in blocks for column in block.T)
        checked += 1
    assert checked == 6


def test_channels_without_weights_are_never_read():
    model = nn.Conv2d(4, 8, 3, padding=1)
    model.weight.data[:, 2] = 0
    engine = compiled(model, (1, 4, 6, 6))
    x = torch.randn(1, 4, 6, 6)
    wanted = engine(x)
    x[:, 2] = float("nan")
    assert torch.equal(engine(x), wanted)


def test_explanation_prints_as_a_table_and_as_json(engine):
    explanation = engine.explain(repeats=1)
    lines = str(explanation).splitlines()
    assert lines[0].split() == list(COLUMNS)
    assert len(lines) >= len(explanation.rows) + 2
    assert any(line.startswith("3.conv1 ") for line in lines)
    assert lines[-1].startswith("microseconds ") and f"isa {engine.isa}" in lines[-1]
    assert json.loads(json.dumps(explanation.to_dict()))["totals"]["steps"] == len(explanation.rows)
    with pytest.raises(EngineError, match="repeats=0 is too few"):
        engine.explain(repeats=0)


def test_rows_stand_in_the_order_in_which_they_run():
    engine = compiled(
        Calls(lambda own, x: own[1](own[0](x).sin()), nn.Conv2d(2, 4, 1), nn.Conv2d(4, 3, 1)), (1, 2, 4, 4)
    )
    named = [row["name"] for row in engine.explain(repeats=1).rows if row["op"] != "copy"]
    assert named == ["layers.0", "sin", "layers.1"]


def test_tuning_keeps_the_result_and_lists_what_it_tried(model, x):
    engine = compiled(model, (2, 3, 9, 9), tune="fast", threads=2)
    close(engine(x), reference(model, x))
    rows = [row for row in engine.explain(repeats=1).rows if row["weights"]]
    for row in rows:
        for where in ("in the network", "alone"):
            times = [t["microseconds"] for t in row["tried"] if t["where"] == where]
            assert times and times == sorted(times)
        assert row["tried"][0]["kernel"] == row["kernel"]  # the fastest won
        assert re.search(r"sparse won|dense won|no zeros", row["why"])
