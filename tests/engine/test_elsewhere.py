"""An artifact away from where it was tuned: it runs, says what is different, and can be fitted without the model."""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from mutations import put_together, taken_apart
from small_models import compiled, lively
from torch import nn

import openwork
from openwork.cli.main import run
from openwork.engine import _native
from openwork.engine.engine import Engine
from openwork.engine.machine import cores, processor
from openwork.errors import OpenworkNotice


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 1, groups=2), nn.Flatten()
    return lively(nn.Sequential(*layers, nn.Linear(16 * 144, 40)), sparsity=0.6)


@pytest.fixture(scope="module")
def engine(model):
    return compiled(model, (2, 3, 12, 12))


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)


def moved(engine, path, **facts):
    """The artifact as if it came from elsewhere."""
    engine.save(path)
    head, arrays = taken_apart(path.read_bytes())
    head["provenance"].update(facts)
    path.write_bytes(put_together(json.dumps(head), arrays))
    return path


def test_an_artifact_says_where_it_was_tuned(engine):
    assert engine.provenance["cpu"] == processor() and engine.provenance["isa"] == engine.isa
    assert engine.provenance["tuned"] == {"effort": "off", "threads": 1}
    assert engine.notices == ()


def test_another_processor_is_said_once_and_changes_no_result(engine, x, tmp_path):
    path = moved(engine, tmp_path / "a.openwork", cpu="Some Other CPU")
    with pytest.warns(
        OpenworkNotice, match=r"a\.openwork was tuned on another processor \(Some Other CPU; this is "
    ) as said:
        loaded = openwork.load(path, threads=1)
    assert len(said) == 1 and said[0].filename == __file__
    np.testing.assert_array_equal(loaded(x), engine(x))
    (notice,) = loaded.notices
    assert "results are right" in notice and processor() in notice and "retune=True" in notice


@pytest.mark.parametrize("isa", _native.isas())
def test_another_instruction_set_runs_and_is_noted(engine, model, x, isa, tmp_path):
    path = moved(engine, tmp_path / "a.openwork", isa="neon")
    loaded = openwork.load(path, threads=1, isa=isa)
    assert loaded.notices == (f"tuned for neon, runs with {isa}: engine.retune() fits it to that",)
    with torch.no_grad():
        np.testing.assert_allclose(loaded(x), model(torch.from_numpy(x)).numpy(), atol=1e-5)


def test_blocks_of_matrices_are_no_matter_of_tuning_again(engine, tmp_path):
    """They are blocks of bytes: a network of floats is tuned again as ever."""
    floats = openwork.load(moved(engine, tmp_path / "a.openwork", isa="avx512amx"), threads=1, isa="base")
    assert floats.notices == ("tuned for avx512amx, runs with base: engine.retune() fits it to that",)
    whole = openwork.load(moved(engine, tmp_path / "b.openwork", isa="avx512amx", int8=1), threads=1, isa="base")
    assert whole.notices[0] == "tuned for avx512amx, runs with base: compiling the model again fits it to that"


def test_more_threads_than_cores_run_and_are_noted(engine, x, tmp_path):
    engine.save(tmp_path / "a.openwork")
    loaded = openwork.load(tmp_path / "a.openwork", threads=cores() + 6)
    np.testing.assert_array_equal(loaded(x), engine(x))
    assert any("more threads than cores make it slower" in n for n in loaded.notices)
    assert any(re.match(r"tuned for 1 threads, runs with \d+: ", n) for n in loaded.notices)


@pytest.mark.parametrize("facts", [{"cpu": 7}, {"cpu": None}, {"tuned": []}, {"tuned": {"threads": "2"}}, {"isa": [1]}])
def test_odd_provenance_is_no_reason_to_fail(engine, x, facts, tmp_path):
    loaded = openwork.load(moved(engine, tmp_path / "a.openwork", **facts), threads=1)
    assert not loaded.notices
    np.testing.assert_array_equal(loaded(x), engine(x))


@pytest.mark.parametrize("isa", _native.isas())
@pytest.mark.parametrize("threads", [1, 3])
def test_retuning_needs_no_model_and_changes_no_result(engine, x, isa, threads, tmp_path):
    path = moved(engine, tmp_path / "a.openwork", cpu="Some Other CPU", isa="neon")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = openwork.load(path, threads=threads, isa=isa, retune=True)
    wanted = Engine(engine.artifact, 1, isa)(x)
    np.testing.assert_allclose(loaded(x), wanted, atol=1e-5)
    assert loaded.provenance["cpu"] == processor() and loaded.provenance["isa"] == isa
    assert loaded.provenance["tuned"] == {"effort": "retuned", "threads": threads}
    assert all("threads on" in n for n in loaded.notices)
    for row in loaded.explain(repeats=1).rows:
        if row["weights"]:
            assert row["why"].endswith("; retuned") and len(row["tried"]) > 3
            times = [t["microseconds"] for t in row["tried"]]
            assert times == sorted(times)
    loaded.save(tmp_path / "b.openwork")
    again = openwork.load(tmp_path / "b.openwork", threads=threads, isa=isa)
    np.testing.assert_array_equal(again(x), loaded(x))
    assert again.artifact.program.steps[0].fields == loaded.artifact.program.steps[0].fields


def test_retuning_undoes_a_bad_choice(engine, x):
    """A step that is one vector wide and cut into needless chunks is slower by far than what is found."""
    spec = engine.artifact.program
    bad = {"taps": {"vectors": 1, "row_chunks": 16, "tile_chunks": 9}, "rows": {"samples": 1, "row_chunks": 40}}
    steps = tuple(replace(s, fields={**s.fields, **bad.get(s.op, {})}) for s in spec.steps)
    slow = Engine(replace(engine.artifact, program=replace(spec, steps=steps)), 1)
    wanted = slow(x)
    slow.retune()
    np.testing.assert_allclose(slow(x), wanted, atol=1e-5)
    changed = [a.fields != b.fields for a, b in zip(slow.artifact.program.steps, steps, strict=True) if a.op in bad]
    assert any(changed)


def test_retuning_keeps_what_packing_fixed(engine):
    steps = engine.artifact.program.steps
    found = Engine(engine.artifact, 2).retune().artifact.program.steps
    free = {"vectors", "samples", "row_chunks", "tile_chunks"}
    for before, after in zip(steps, found, strict=True):
        assert after.arrays is before.arrays and after.op == before.op
        assert {k: v for k, v in after.fields.items() if k not in free} == {
            k: v for k, v in before.fields.items() if k not in free
        }


def test_on_the_command_line(engine, tmp_path, capfd, x):
    path = moved(engine, tmp_path / "a.openwork", cpu="Some Other CPU")
    np.save(tmp_path / "x.npy", x)
    assert run(["run", str(path), "--input", str(tmp_path / "x.npy"), "--threads", "1"]) == 0
    printed = capfd.readouterr()
    assert re.match(r"notice: .*a\.openwork was tuned on another processor .*compile the model again\n$", printed.err)
    assert run(["retune", str(path), "--threads", "1", "-o", str(tmp_path / "b.openwork")]) == 0
    printed = capfd.readouterr()
    assert printed.err == "" and printed.out.startswith(f"wrote {tmp_path / 'b.openwork'}, fitted to ")
    assert openwork.load(tmp_path / "b.openwork", threads=1).notices == ()
