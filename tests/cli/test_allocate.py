"""A budget from the user's seat: the table before training, and a run that keeps it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from seat import DATA, MODEL
from torch import Tensor

from openwork.cli import main
from openwork.recipes.recipe import Recipe

TEXT = """
rules:
  - {targets: all, constraint: {kind: block, shape: [4, 1]}, max_sparsity: 0.9}
constraints: BUDGET
solver: {kind: magnitude}
schedule: {shape_epochs: 1, retrain_epochs: 1, batch_size: 16}
"""


class Table:
    """In place of the engine's clock: 100 us of convolution, 40 of the linear layer, which is never faster sparse."""

    def __init__(self, *_: object) -> None:
        pass

    def key(self, name: str) -> str:
        return name

    def layer(self, name: str, member: Tensor | None) -> float:
        share = 1.0 if member is None else float(member.count_nonzero()) / member.numel()
        return 100.0 * share if name == "conv" else 40.0

    def network(self, members: Mapping[str, Tensor]) -> float:
        return 40.0 + self.layer("conv", members.get("conv"))


def asked(folder: Path, budget: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(TEXT.replace("BUDGET", budget))
    return path


def test_a_run_keeps_a_budget_of_latency(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("openwork.allocation.engine_clock.EngineClock", Table)
    monkeypatch.chdir(tmp_path)
    order = ["compress", MODEL, "--recipe", str(asked(tmp_path, "{latency: 60%}")), "--data", DATA, "--threads", "1"]
    order += ["--run-dir", "run", "--against", "none", "--repeats", "3", "--json"]
    assert main.run(order) == 0
    out, err = capfd.readouterr()
    layers = {layer["name"]: layer for layer in json.loads(out)["layers"]}
    assert layers["fc"]["constraint"] is None, "it would not be faster"
    assert layers["conv"]["sparsity"] > 0.5, "84 of 140 us are allowed, 40 of them are the linear layer's"
    assert "latency 78.9 us of at most 84 us (56.3% of 140 us dense; 78.9 us as a sum over layers)" in " ".join(
        err.split()
    )
    used = Recipe.load("run/recipe.yaml")
    assert used.constraints is None and [rule.targets for rule in used.rules] == [("conv",)]
    assert main.run(order) == 0, "a finished run is known by the recipe that was asked for"
    capfd.readouterr()
    assert main.run(["allocate", *order[1:6], "--run-dir", "run"]) == main.MISTAKE
    assert "run holds a run, and what was picked for it in allocation.json" in capfd.readouterr().err


def test_a_budget_of_bytes_is_shown_layer_by_layer_and_written_as_a_recipe(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = asked(tmp_path, "{bytes: 50%, scan: weights}")
    order = ["allocate", MODEL, "--recipe", str(path), "--data", DATA, "-o", "picked.yaml", "--run-dir", "run"]
    assert main.run([*order, "--json"]) == 0
    document: dict[str, Any] = json.loads(capfd.readouterr().out)
    spent = document["spent"]["bytes"]
    assert spent["dense"] == 4 * (72 + 512) and spent["predicted"] <= spent["limit"] == 2 * (72 + 512)
    picked = Recipe.load(tmp_path / "picked.yaml")
    assert [list(rule.targets) for rule in picked.rules] == [rule["targets"] for rule in document["recipe"]["rules"]]
    assert (tmp_path / "run" / "allocation.json").is_file()


def test_people_get_a_table(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openwork.allocation.engine_clock.EngineClock", Table)
    monkeypatch.setenv("COLUMNS", "160")
    path = asked(tmp_path, "{latency: 60%}")
    assert main.run(["allocate", MODEL, "--recipe", str(path), "--data", DATA]) == 0
    lines = capfd.readouterr().out.splitlines()
    heads, conv, fc = (next(line for line in lines if word in line) for word in ("break-even", "conv ", "fc "))
    assert heads.split()[:2] == ["layer", "zeros"]
    assert "60 %" in conv and "100 us -> 38.9 us" in conv
    assert "dense" in fc and "dense: not faster at any sparsity up to 0.9" in fc
    assert any(line.startswith("latency") and "of at most 84 us" in line for line in lines)


def test_an_impossible_budget_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = asked(tmp_path, "{bytes: 1%, scan: weights}")
    assert main.run(["allocate", MODEL, "--recipe", str(path), "--data", DATA]) == main.MISTAKE
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("error: constraints.bytes: 1% is impossible: as sparse as the rules let it be")
    assert "the nearest possible is " in last
