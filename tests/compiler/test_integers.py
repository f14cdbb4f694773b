"""Whole numbers and truth values go in and come out in the model's own types; native steps see 32-bit integers."""

import re

import numpy as np
import pytest
import torch
from small_models import Calls, left_to_torch
from torch import nn

import openwork
from openwork.engine.buffers import seen_natively
from openwork.errors import EngineError
from openwork.formats.program import TensorSpec

IDS = torch.tensor([[1, 5, 2, 0], [7, 3, 3, 9]])
IMAGES = torch.arange(2 * 3 * 4 * 4, dtype=torch.uint8).view(2, 3, 4, 4)
FLOATS = torch.linspace(-1, 1, 2 * 3 * 4 * 4).view(2, 3, 4, 4)
MASK = torch.tensor([[True, True, True, False], [True, True, False, False]])


def texts(*layers):
    return lambda: Calls(lambda own, ids: own[1](own[0](ids)), nn.Embedding(10, 6), nn.Linear(6, 5))


def masked():
    def forward(own, ids, mask):
        y = own[1](own[0](ids))
        return (y.masked_fill(~mask.unsqueeze(-1), 0) @ own[2].weight).relu(), y.argmax(-1), mask.sum(1)

    return Calls(forward, nn.Embedding(10, 6), nn.Linear(6, 5), nn.Linear(7, 5))


def with_positions():
    def forward(own, ids):
        return own[2](own[0](ids) + own[1](torch.arange(ids.shape[1], device=ids.device)))

    return Calls(forward, nn.Embedding(10, 6), nn.Embedding(4, 6), nn.Linear(6, 5))


MODELS = {
    "embedding": (texts(), (IDS,), ["float32"]),
    "32-bit ids": (texts(), (IDS.int(),), ["float32"]),
    "mask": (masked, (IDS, MASK), ["float32", "int64", "int64"]),
    "positions": (with_positions, (IDS,), ["float32"]),
    "bytes": (lambda: Calls(lambda own, x: own[0](x.float() / 255), nn.Conv2d(3, 4, 3)), (IMAGES,), ["float32"]),
    "sum of both": (lambda: Calls(lambda own, x, n: own[0](x + n), nn.Conv2d(3, 2, 1)), (FLOATS, IMAGES), ["float32"]),
    "no floats": (lambda: Calls(lambda own, ids: (ids + 1, ids > 2, ids)), (IDS,), ["int64", "bool", "int64"]),
    "comparison": (lambda: Calls(lambda own, x: own[0](x) > 0, nn.Conv2d(3, 2, 1)), (FLOATS,), ["bool"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_types_are_the_models_own(name, tmp_path):
    build, inputs, dtypes = MODELS[name]
    model = build().eval()
    compiled = openwork.compile(model, inputs, threads=1, tune="off")
    compiled.save(tmp_path / "a.openwork")
    for engine in (compiled, openwork.load(tmp_path / "a.openwork", threads=2)):
        assert [i.dtype for i in engine.inputs] == [str(i.dtype).removeprefix("torch.") for i in inputs]
        assert [o.dtype for o in engine.outputs] == dtypes
        for batch in (1, 2, 3):
            given = tuple(torch.cat([i, i.flip(0)])[:batch] for i in inputs)
            with torch.no_grad():
                wanted = model(*given)
            found = engine(*given)
            for ours, theirs in zip(as_list(found), as_list(wanted), strict=True):
                assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
                torch.testing.assert_close(ours, theirs)
    assert len(engine.time(2, 1)) == 2 and str(engine.explain(1))


def as_list(value):
    return [value] if isinstance(value, torch.Tensor) else list(value)


def test_an_operator_on_floats_and_whole_numbers_stays_with_pytorch():
    """Its native form would read the numbers' bits as floats."""
    build, inputs, _ = MODELS["sum of both"]
    assert left_to_torch(openwork.compile(build(), inputs, threads=1, tune="off")) == ["aten.add.Tensor"]


@pytest.fixture(scope="module")
def engine():
    return openwork.compile(texts()(), IDS, threads=1, tune="off")


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint8", "uint32", "uint64", ">i8", ">i4"])
def test_whole_numbers_of_any_type_are_taken(engine, dtype):
    np.testing.assert_array_equal(engine(IDS.numpy().astype(dtype)), engine(IDS).numpy())


def test_truth_values_count_as_numbers(engine):
    np.testing.assert_array_equal(engine(MASK), engine(MASK.long()))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (IDS.float(), "input .* has type float32, the engine takes int64 or another type of whole numbers; convert"),
        (IDS.bfloat16(), r"input .* has type torch\.bfloat16, the engine takes int64"),
        (IDS.numpy().astype("S1"), r"has type \|S1"),
        (np.full((1, 4), 2**63, np.uint64), "holds 9223372036854775808, which its type int64 cannot hold"),
        (IDS[:, :3], r"has shape \(2, 3\), the engine takes \(any batch, 4\)"),
    ],
)
def test_what_does_not_fit_is_named(engine, value, message):
    with pytest.raises(EngineError, match=message):
        engine(value)


def test_beyond_32_bits_native_steps_refuse():
    build = Calls(lambda own, x, n: (own[0](x), n + 1), nn.Conv2d(3, 2, 1))
    engine = openwork.compile(build, (FLOATS, IDS), threads=1, tune="off")
    with pytest.raises(EngineError, match="holds whole numbers from 0 to 1099511627776, native steps take"):
        engine(FLOATS, torch.tensor([[0, 1, 2, 3], [4, 5, 6, 2**40]]))


def test_a_narrower_type_takes_what_it_holds():
    build, inputs, _ = MODELS["32-bit ids"]
    engine = openwork.compile(build(), inputs, threads=1, tune="off")
    np.testing.assert_array_equal(engine(IDS), engine(IDS.int()))
    with pytest.raises(EngineError, match="holds 4294967296, which its type int32 cannot hold"):
        engine(torch.tensor([[0, 1, 2**32, 3]]))


def test_an_id_out_of_range_is_an_error(engine):
    with pytest.raises(EngineError, match=r"token 10 at position 3 is not in the vocabulary of 0\.\.9"):
        engine(torch.tensor([[1, 2, 3, 10]]))


def test_native_steps_see_the_bits_of_32_bit_integers():
    buffers = [
        np.array([0.5, -1], np.float32), np.array([3, -4], np.int64), np.array([True, False]), np.array([7], np.uint8)
    ]  # fmt: skip
    names = ("float32", "int64", "bool", "uint8")
    externals = [TensorSpec(d, b.shape, d) for d, b in zip(names, buffers, strict=True)]
    seen = seen_natively(externals, buffers)
    assert seen[0] is buffers[0] and all(s.dtype == np.float32 for s in seen)
    assert [s.view(np.int32).tolist() for s in seen[1:]] == [[3, -4], [1, 0], [7]]
    for value in (2**31, -(2**31) - 1):
        with pytest.raises(EngineError, match=re.escape(f"from 0 to {value}") if value > 0 else f"from {value} to 0"):
            seen_natively([TensorSpec("n", (2,), "int64")], [np.array([0, value])])


def test_another_answer_in_whole_numbers_is_no_agreement(monkeypatch):
    from openwork.engine.engine import Engine

    build, inputs, _ = MODELS["no floats"]
    run = Engine._run
    monkeypatch.setattr(
        Engine, "_run", lambda self, arrays, level: [y + (y.dtype != bool) for y in run(self, arrays, level)]
    )
    with pytest.raises(openwork.errors.CompileError, match="differ from PyTorch"):
        openwork.compile(build(), inputs, threads=1, tune="off")
