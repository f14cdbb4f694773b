"""`openwork quantize`, from the user's seat, and what reads its folder."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mine import model as tiny
from safetensors.torch import save_file
from seat import DATA, MODEL, Done

import openwork
from openwork.cli import main
from openwork.report import write_report


def call(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    capfd.readouterr()
    assert main.run([str(a) for a in arguments]) == 0, capfd.readouterr().err
    return capfd.readouterr().out


def test_quantize_compile_and_report(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    network, out = tiny(), tmp_path / "int8"
    with torch.no_grad():
        network.conv.weight[[1, 6]] = 0
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    options = ("--weights", tmp_path / "w.safetensors", "--data", DATA, "-o", out, "--evaluate", "--samples", 12)
    found = json.loads(call(capfd, "quantize", MODEL, *options, "--json"))
    assert sorted(p.name for p in out.iterdir()) == ["model.safetensors", "quantization.json", "result.json"]
    assert found["quantized"] == {"weight_bits": 8, "activation_bits": 8}
    assert found["quantization"]["samples"] == 12 and found["final"]["weights"] == 8 * 9 + 4 * 128
    assert found["final"]["sparsity"] >= 18 / found["final"]["weights"]
    assert abs(found["final"]["test_accuracy"] - found["dense"]["test_accuracy"]) < 0.2

    artifact, x = out / "tiny.openwork", np.random.default_rng(0).standard_normal((1, 1, 8, 8), dtype=np.float32)
    call(capfd, "compile", out, "-o", artifact, "--tune", "off", "--threads", 1)
    engine = openwork.load(artifact, threads=1)
    assert engine.provenance["quantized"]["weight_bits"] == 8 and engine.provenance["model"] == MODEL
    y = network(torch.from_numpy(x)).detach().numpy()
    assert 0 < np.linalg.norm(engine(x) - y) / np.linalg.norm(y) < 0.05

    page = write_report(out).read_text()
    assert 'id="quantization"' in page and "outputs, dB" in page and "no epoch was finished" not in page
    assert "8 bits a weight" in page


def test_a_run_folder_and_the_text(home: Path, compressed: Done, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(home):
        text = call(
            *(capfd, "quantize", "runs/tiny", "--data", DATA, "-o", "runs/small", "--bits", 4, "--measured", 0),
            *("--observer", "percentile", "--percent", 99, "--leave", "fc", "--keep-bias", "--equalize"),
        )
        found = json.loads(Path("runs/small/quantization.json").read_text())
    assert "left in float32" in text and "fc (as was asked for)" in text and "-7..7 x" in text
    assert found["settings"]["observer"] == {"kind": "percentile", "percent": 99}
    assert found["settings"]["weight_bits"] == found["settings"]["activation_bits"] == 4
    assert json.loads((home / "runs/small/result.json").read_text())["final"]["weights"] == 8 * 9 + 4 * 128


def test_rows_of_their_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows"
    text = call(capfd, "quantize", MODEL, "--data", DATA, "-o", out, "--per-row", "--samples", 12)
    assert "by row" in text
    found = json.loads((out / "quantization.json").read_text())
    images, features = (place["grid"] for place in found["places"])
    assert found["settings"]["per_row"] and features == {"high": 127} and images["scale"] > 0
    call(capfd, "compile", out, "-o", tmp_path / "rows.openwork", "--tune", "off", "--threads", 1)
    assert openwork.load(tmp_path / "rows.openwork", threads=1).provenance["int8"]["layers"] == 2
    assert 'id="quantization"' in write_report(out).read_text()


def test_mistakes(tmp_path: Path, mistake: Callable[..., str]) -> None:
    def line(*options: object) -> str:
        return mistake("quantize", MODEL, "--data", DATA, "-o", tmp_path / "out", *options, cwd=tmp_path)

    assert "weight_bits: 9 is not in 2..8; choose 2 to 8 bits" in line("--bits", 9)
    assert "weight_bits: 0 is not in 2..8" in line("--weight-bits", 0)
    assert "unknown observer 'mes'; did you mean mse" in line("--observer", "mes")
    assert "--percent 99 belongs to observer percentile, not mse" in line("--percent", 99)
    assert "unknown layer 'fcc'; did you mean fc" in line("--leave", "fcc")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.json").write_text("{}")
    assert "holds a run already; choose another folder" in line()
