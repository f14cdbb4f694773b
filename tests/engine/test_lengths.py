"""Sequences of any length up to the compiled one: padded, cut back, and only where that changes nothing."""

import json

import numpy as np
import pytest
import torch
from mutations import put_together, taken_apart
from small_models import Calls
from torch import nn

import openwork
from openwork.errors import ArtifactError, CompileError, EngineError, UsageError
from openwork.formats.program import Lengths

LONGEST = 12


class Attention(nn.Module):
    """Words look at each other where the mask is one; two heads, then features of words and of the whole."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.place = nn.Embedding(LONGEST, 8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, LONGEST)  # as many features as words: not to be mistaken for the length

    def forward(self, ids, mask):
        x = self.embed(ids) + self.place(torch.arange(ids.shape[1]))
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        scores = (q @ k.transpose(-1, -2)).masked_fill(mask[:, None, None] == 0, float("-inf"))
        words = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        weight = mask.unsqueeze(-1).to(words.dtype)
        return words, (words * weight).sum(1) / weight.sum(1)


def sentences(batch, length, seed=0):
    random = np.random.default_rng(seed)
    mask = np.arange(length) < random.integers(1, length + 1, (batch, 1))
    return torch.from_numpy(random.integers(1, 20, (batch, length)) * mask), torch.from_numpy(mask.astype(np.int64))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Attention().eval()


@pytest.fixture(scope="module")
def engine(model):
    return openwork.compile(model, sentences(2, LONGEST), any_length=True, threads=1, tune="off")


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 5, 11, 12])
def test_any_length_gives_what_the_model_gives(engine, model, batch, length, tmp_path):
    engine.save(tmp_path / "a.openwork")
    for ours in (engine, openwork.load(tmp_path / "a.openwork", threads=1)):
        for seed in range(3):
            inputs = sentences(batch, length, seed)
            with torch.no_grad():
                wanted = model(*inputs)
            found = ours(*inputs)
            assert [f.shape for f in found] == [(batch, length, LONGEST), (batch, LONGEST)]
            for f, w in zip(found, wanted, strict=True):
                torch.testing.assert_close(f, w, rtol=0, atol=1e-4 * float(w.abs().max()))
            assert all(f.is_contiguous() for f in found)


def test_what_follows_the_length_is_found_by_trying(engine):
    assert engine.artifact.program.lengths == Lengths(LONGEST, (0, 1), (0,))


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ((2, 13), (2, 13), r"has shape \(2, 13\), the engine takes \(any batch, 1 to 12\)"),
        ((2, 0), (2, 0), r"has shape \(2, 0\), the engine takes \(any batch, 1 to 12\)"),
        ((2, 5, 1), (2, 5), r"has shape \(2, 5, 1\), the engine takes \(any batch, 1 to 12\)"),
        ((2,), (2,), r"has shape \(2,\)"),
        ((2, 5), (2, 6), r"inputs have different lengths along axis 1: \[5, 6\]"),
        ((2, 5), (3, 5), r"inputs have different batch sizes: \[2, 3\]"),
    ],
)
def test_what_does_not_fit_is_named(engine, ids, mask, message):
    with pytest.raises(EngineError, match=message):
        engine(np.zeros(ids, np.int64), np.ones(mask, np.int64))


def test_no_samples_of_a_short_sequence(engine):
    words, whole = engine(*(i[:0] for i in sentences(2, 5)))
    assert words.shape == (0, 5, LONGEST) and whole.shape == (0, LONGEST)


def test_without_asking_only_the_compiled_length_runs(model):
    engine = openwork.compile(model, sentences(2, LONGEST), threads=1, tune="off")
    with pytest.raises(EngineError, match=r"has shape \(2, 5\), the engine takes \(any batch, 12\)"):
        engine(*sentences(2, 5))


def test_inputs_of_floats_too():
    model = Calls(lambda own, x, scale: own[0](x) * scale, nn.Linear(3, 4))
    x, scale = torch.randn(2, 9, 3), torch.randn(2, 1, 4)
    engine = openwork.compile(model, (x, scale), any_length=True, threads=1, tune="off")
    with torch.no_grad():
        torch.testing.assert_close(engine(x[:, :4], scale), model(x[:, :4], scale))


MODELS = [
    (CompileError, r"zeros that fill length 3 up to 8 change the outputs by .*; give the model an attention mask",
     lambda own, x: own[0](x).softmax(1)),
    (CompileError, "zeros that fill", lambda own, x: own[0](x.flip(1))),
    (CompileError, r"the model does not run at length 3: .*shape", lambda own, x: own[0](x.view(2, 8, 3))),
    (CompileError, r"output 0 has shape \(2, 4, 8\) at length 8 and \(2, 4, 3\) at length 3: only its axis 1",
     lambda own, x: own[0](x).transpose(1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "message", "function"), MODELS)
def test_a_model_for_which_it_would_be_wrong_is_refused(kind, message, function):
    with pytest.raises(kind, match=message):
        openwork.compile(Calls(function, nn.Linear(3, 4)), torch.randn(2, 8, 3), any_length=True, tune="off", threads=1)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 3)])
def test_without_an_axis_for_the_length(shape):
    with pytest.raises(UsageError, match=r"any_length wants a first input \[batch, length, \.\.\.\]"):
        openwork.compile(nn.ReLU(), torch.randn(shape), any_length=True, tune="off", threads=1)


@pytest.mark.parametrize(
    "lie",
    [
        {"longest": 13}, {"longest": 0}, {"longest": "12"}, {"inputs": []}, {"inputs": [2]}, {"inputs": [-1]},
        {"outputs": [2]}, {"outputs": [1], "longest": 5}, {"inputs": None},
    ],
)  # fmt: skip
def test_lies_in_a_file_are_found(engine, lie, tmp_path):
    engine.save(tmp_path / "a.openwork")
    head, arrays = taken_apart((tmp_path / "a.openwork").read_bytes())
    head["program"]["lengths"].update(lie)
    (tmp_path / "a.openwork").write_bytes(put_together(json.dumps(head), arrays))
    with pytest.raises(ArtifactError, match="is damaged"):
        openwork.load(tmp_path / "a.openwork")


def test_files_from_before_lengths_are_read(engine, tmp_path):
    engine.save(tmp_path / "a.openwork")
    head, arrays = taken_apart((tmp_path / "a.openwork").read_bytes())
    del head["program"]["lengths"]
    (tmp_path / "a.openwork").write_bytes(put_together(json.dumps(head), arrays))
    assert openwork.load(tmp_path / "a.openwork")(*sentences(2, LONGEST))[0].shape == (2, LONGEST, LONGEST)
