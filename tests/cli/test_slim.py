"""`openwork slim`, from the user's seat, and what reads its file."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mine import model as tiny
from safetensors.torch import load_file, save_file
from seat import MODEL, RECIPE, Done

import openwork
from openwork.cli import main


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    """Weights of the user's model with two filters of zeros and one channel that nobody reads."""
    torch.manual_seed(0)
    network = tiny()
    with torch.no_grad():
        network.conv.weight[[1, 6]] = 0
        network.fc.weight[:, 3 * 16 : 4 * 16] = 0
    save_file(network.state_dict(), tmp_path / "pruned.safetensors")
    return tmp_path / "pruned.safetensors"


def call(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    capfd.readouterr()
    assert main.run([str(a) for a in arguments]) == 0, capfd.readouterr().err
    return capfd.readouterr().out


def test_slim_then_compile_gives_the_outputs_of_the_pruned_model(
    pruned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "slim.safetensors"
    found = json.loads(call(capfd, "slim", MODEL, "--weights", pruned, "-o", out, "--json"))
    assert [layer["after"] for layer in found["layers"]] == [[5, 1, 3, 3], [4, 5 * 16]]
    assert found["bytes"] == out.stat().st_size < pruned.stat().st_size and found["difference"] < 1e-5
    assert sum(count for count, _ in found["layers"][0]["removed"]) == 3
    assert load_file(out)["conv.weight"].shape == (5, 1, 3, 3)

    x, engines = np.random.default_rng(0).standard_normal((1, 1, 8, 8), dtype=np.float32), []
    for weights in (pruned, out):
        artifact = tmp_path / f"{weights.stem}.openwork"
        call(capfd, "compile", MODEL, "--weights", weights, "-o", artifact, "--tune", "off", "--threads", 1)
        engines.append(openwork.load(artifact, threads=1))
    np.testing.assert_allclose(engines[1](x), engines[0](x), rtol=1e-4, atol=1e-5)

    rounded = json.loads(call(capfd, "slim", MODEL, "--weights", pruned, "-o", out, "--multiple", 4, "--json"))
    assert rounded["layers"][0]["after"] == [8, 1, 3, 3]
    text = call(capfd, "slim", MODEL, "--weights", pruned, "-o", out, "--purify-share", 0.05, "--keep", "fc")
    assert "layer" in text and "left 3: fc is to be kept" in text


def test_slim_of_a_run_folder_holds_its_recipe(home: Path, compressed: Done, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.chdir(home):
        found = json.loads(call(capfd, "slim", "runs/tiny", "-o", "slim.safetensors", "--json"))
    assert [layer["name"] for layer in found["layers"]] == ["conv", "fc"]


def test_mistakes(pruned: Path, tmp_path: Path, mistake: Callable[..., str]) -> None:
    out = tmp_path / "slim.safetensors"
    assert "not a .safetensors" in mistake("slim", MODEL, "-o", tmp_path / "x.pth", cwd=tmp_path)
    line = mistake("slim", MODEL, "--weights", pruned, "-o", out, "--recipe", RECIPE, "--free", cwd=tmp_path)
    assert "give one of --recipe" in line
    undecided = f"{Path(MODEL.partition(':')[0])}:undecided"
    assert "cannot be traced by torch.fx" in mistake("slim", undecided, "-o", out, cwd=tmp_path)
    assert "unknown layer 'cov'" in mistake("slim", MODEL, "-o", out, "--keep", "cov", cwd=tmp_path)
    assert not out.exists()


def test_narrower_weights_are_refused_unless_the_file_says_so(tmp_path: Path, mistake: Callable[..., str]) -> None:
    save_file({**tiny().state_dict(), "conv.bias": torch.zeros(5)}, tmp_path / "w.safetensors")
    line = mistake("compile", MODEL, "--weights", "w.safetensors", "-o", "x.openwork", cwd=tmp_path)
    assert "conv.bias has shape [5], the model wants [8]" in line
