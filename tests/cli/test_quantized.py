"""A run that quantizes, on the command line: its artifact, and what other commands make of its folder."""

import contextlib
import json
from pathlib import Path

import pytest
from seat import DATA, MODEL

from openwork.cli import main

RECIPE = """
rules: [{targets: conv, constraint: {kind: block, shape: [4, 1], sparsity: 0.5}}]
solver: {kind: magnitude}
quantize: {activations: {batches: 2}}
schedule:
  dense_epochs: 2
  shape_epochs: 0
  retrain_epochs: 1
  quantize_epochs: 1
  batch_size: 16
  dense_rate: {peak: 0.01}
"""


def test_a_quantized_run_is_compiled_timed_and_compiled_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def document(*arguments: object) -> dict[str, object]:
        with contextlib.chdir(tmp_path):
            code = main.run([*map(str, arguments), "--json"])
        out, err = capfd.readouterr()
        assert code == 0, err
        found: dict[str, object] = json.loads(out)
        return found

    order = ("compress", MODEL, "--recipe", "recipe.yaml", "--data", DATA, "--run-dir", "run", "--threads", 1)
    whole = document(*order, "--against", "pytorch", "--repeats", 3)
    assert set(whole["quantized"]) == {"float32", "calibrated"}  # type: ignore[call-overload]
    final = json.loads((tmp_path / "run" / "result.json").read_text())["final"]["test_accuracy"]

    document("compile", "run", "-o", "again.openwork", "--threads", 1, "--tune", "off")
    measured = document("run", "again.openwork", "--data", DATA, "--threads", 1)
    assert measured["accuracy"] == pytest.approx(final, abs=0.04)  # ties may round the other way
