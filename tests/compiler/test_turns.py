"""Batches whose samples are worked on one after the other."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import openwork
from openwork.compiler import compile as compiling
from openwork.engine.engine import Engine
from openwork.errors import ArtifactError, EngineError
from openwork.formats import artifact
from openwork.formats.artifact import Artifact


@pytest.fixture
def turns_win(monkeypatch):
    """The clock prefers turns wherever they are possible."""

    def time(self, repeats=100, warmup=10):
        return [1.0 / self.artifact.program.turns] * repeats

    monkeypatch.setattr(Engine, "time", time)


def convolutions():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Flatten(), nn.Linear(8 * 36, 5)
    ).eval()


class Mixing(nn.Module):
    """Says of each sample how far it is from the batch's average: no sample can be worked on alone."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = self.inner(x)
        return y.reshape(1, -1, 6, 6).amax(1).reshape(1, 1, 6, 6) + y


@pytest.mark.parametrize("threads", [1, 2])
def test_outputs_are_those_of_the_batch(turns_win, threads):
    model, x = convolutions(), torch.randn(5, 3, 12, 12)
    engine = openwork.compile(model, x, threads=threads)
    assert engine.artifact.program.turns == 5 and [s.shape for s in engine.inputs] == [(5, 3, 12, 12)]
    assert engine.provenance["max_relative_error"] == compiling.check(engine, model, (x,))
    for n in (5, 1, 7, 0):  # a compiled batch, pieces of one, several
        other = torch.randn(n, 3, 12, 12)
        torch.testing.assert_close(engine(other), model(other).detach(), rtol=1e-4, atol=1e-5)


def test_the_artifact_keeps_its_turns(turns_win, tmp_path):
    model, x = convolutions(), torch.randn(3, 3, 12, 12)
    engine = openwork.compile(model, x, threads=1)
    engine.save(tmp_path / "a.openwork")
    loaded = openwork.load(tmp_path / "a.openwork")
    assert loaded.artifact.program.turns == 3
    assert torch.equal(loaded(x), engine(x))


def test_explain_counts_all_turns(turns_win):
    model, x = convolutions(), torch.randn(4, 3, 12, 12)
    rows = {
        turns: openwork.compile(model, x, threads=1, tune=tune).explain(3) for turns, tune in ((4, "fast"), (1, "off"))
    }
    assert rows[4].totals["turns"] == 4 and "turns" not in rows[1].totals
    adds = [[r["multiply_adds"] for r in found.rows if r["op"] in ("conv", "linear")] for found in rows.values()]
    assert adds[0] == adds[1]


def test_the_clock_decides(monkeypatch):
    monkeypatch.setattr(Engine, "time", lambda self, repeats=1, warmup=0: [1.0 * self.artifact.program.turns])
    assert openwork.compile(convolutions(), torch.randn(3, 3, 12, 12), threads=1).artifact.program.turns == 1


def test_a_batch_is_not_taken_apart_without_tuning(turns_win):
    assert (
        openwork.compile(convolutions(), torch.randn(3, 3, 12, 12), threads=1, tune="off").artifact.program.turns == 1
    )


@pytest.mark.parametrize("x", [torch.randn(3, 2, 6, 6), torch.ones(3, 2, 6, 6)], ids=["any", "alike"])
def test_samples_that_meet_stay_together(turns_win, x):
    model = Mixing().eval()
    engine = openwork.compile(model, x, threads=1)
    assert engine.artifact.program.turns == 1
    other = torch.randn(3, 2, 6, 6)
    torch.testing.assert_close(engine(other), model(other).detach(), rtol=1e-4, atol=1e-5)


def test_states_whose_batch_is_not_the_first_axis_stay_together(turns_win):
    model = nn.GRU(4, 6, batch_first=True).eval()
    inputs = torch.randn(2, 5, 4), torch.randn(1, 2, 6)
    engine = openwork.compile(model, inputs, threads=1)
    assert engine.artifact.program.turns == 1


def test_a_token_that_is_not_in_the_table_is_found_in_every_turn(turns_win):
    model = nn.Sequential(nn.Embedding(10, 8), nn.LayerNorm(8)).eval()
    tokens = torch.arange(12).reshape(3, 4) % 10
    engine = openwork.compile(model, tokens, threads=1)
    assert engine.artifact.program.turns == 3
    with pytest.raises(EngineError, match="10"):
        engine(torch.cat([tokens[:2], torch.full((1, 4), 10)]))


def test_progress_goes_from_nothing_to_all_once(turns_win):
    seen = []
    openwork.compile(
        convolutions(), torch.randn(2, 3, 12, 12), threads=1, progress=lambda done, total: seen.append(done / total)
    )
    assert seen == sorted(seen) and seen[-1] == 1


@pytest.mark.parametrize("turns", [0, -1, 2, 1.0, None, 1 << 40])
def test_damaged_turns(turns):
    engine = openwork.compile(convolutions(), torch.randn(3, 3, 12, 12), threads=1, tune="off")
    program = dataclasses.replace(engine.artifact.program, turns=turns)
    content = artifact.to_bytes(Artifact(program))
    with pytest.raises(ArtifactError, match="damaged"):
        artifact.from_bytes(content)


def test_steps_that_reach_beyond_a_turns_share_are_refused():
    engine = openwork.compile(convolutions(), torch.randn(4, 3, 12, 12), threads=1, tune="off")
    with pytest.raises(ArtifactError, match="outside its buffer"):
        Engine(Artifact(dataclasses.replace(engine.artifact.program, turns=2)), 1)


def test_varied_samples_differ():
    floats, tokens = compiling._varied((torch.ones(3, 4), torch.arange(6).reshape(3, 2)))
    assert len(np.unique(floats.numpy(), axis=0)) == 3
    assert sorted(tokens.flatten().tolist()) == list(range(6)) and not torch.equal(
        tokens, torch.arange(6).reshape(3, 2)
    )
