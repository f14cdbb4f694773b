"""`openwork demo`, with fewer epochs than people get: the same way, the same checks, the same table."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from openwork.cli import _evaluate, _output, _way, demo, main
from openwork.errors import CompileError


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """One epoch of each phase, three rounds of timing."""

    def order(**fields: Any) -> _way.Order:
        return dataclasses.replace(_way.Order(**fields), epochs_scale=0.01, repeats=3, against=("pytorch",))

    monkeypatch.setattr(demo, "Order", order)


def run_demo(folder: Path, capfd: pytest.CaptureFixture[str], *more: str) -> tuple[str, str]:
    assert main.run(["demo", "--run-dir", str(folder), "--threads", "1", *more]) == 0
    out, err = capfd.readouterr()
    return out, err


def test_demo_from_start_to_end_and_again(short: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    out, err = run_demo(folder, capfd, "--json")
    document = json.loads(out)
    assert document["check"]["examples"] == document["check"]["agreeing"] == 360
    assert document["check"]["difference"] <= demo.TOLERANCE
    assert document["check"]["accuracy"] == pytest.approx(document["final"]["test_accuracy"])
    assert document["final"]["sparsity"] == pytest.approx(0.9, abs=0.005)
    assert (folder / "report.html").is_file() and (folder / "lenet5.openwork").is_file()
    assert "epoch 3/3 retrain" in err

    out, err = run_demo(folder, capfd)
    assert "epoch" not in err and "is finished" in " ".join(err.split())
    words = " ".join(out.split())
    for expected in ("test accuracy", "430,500", "latency beside pytorch", "report.html", "lenet5.openwork"):
        assert expected in words.replace(" ", "") or expected in words, out


def test_demo_refuses_an_engine_whose_outputs_are_wrong() -> None:
    """The check that the table rests on can fail."""
    data = type("Data", (), {"test_batches": lambda self, n: iter([(torch.ones(2, 1), torch.zeros(2))])})()
    engine = type("Engine", (), {"inputs": [np.zeros((1, 1))], "__call__": lambda self, x, level: 1.001 * x})()
    outcome = type("Outcome", (), {"data": data, "engine": engine})()
    outcome.result = type("Result", (), {"model": torch.nn.Identity()})()
    with pytest.raises(CompileError, match=r"1\.0e-03"):
        demo.compare(outcome)
    assert _evaluate.accuracy(engine, data) == (1.0, 2)


def test_json_has_no_nan(capfd: pytest.CaptureFixture[str]) -> None:
    _output.show({"load": float("nan"), "rows": [{"x": float("inf"), "path": Path("a")}]}, "", True)
    assert json.loads(capfd.readouterr().out) == {"load": None, "rows": [{"x": None, "path": "a"}]}
