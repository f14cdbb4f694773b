"""A small run folder with everything in it: figures chosen by hand, a known mask, a really compiled artifact."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import openwork

sys.path.insert(0, str(Path(__file__).parent))

ROUNDS = {"median_us": 20.0, "low_us": 19.0, "high_us": 22.0}
BENCH = {
    "threads": 1,
    "batch": 1,
    "repeats": 30,
    "isa": "avx2",
    "load": 0.5,
    "machine": {"processor": "Test CPU", "cores": 2},
    "when": "2026-01-02T03:04:05+00:00",
    "notes": ["openvino was left out"],
    "sides": [
        {"name": "openwork", "engine": "openwork", "version": "0.1.0", "ratio": 1.0, **ROUNDS},
        {"name": "pytorch", "engine": "pytorch", "version": "2.13", "ratio": 10.0, "ratio_low": 9.0, "ratio_high": 11.0,
         "median_us": 200.0, "low_us": 190.0, "high_us": 230.0},
        {"name": "onnxruntime", "engine": "onnxruntime", "version": "1.31", "ratio": 3.0, "ratio_low": 2.9,
         "ratio_high": 3.1, "median_us": 60.0, "low_us": 59.0, "high_us": 61.0},
    ],
}  # fmt: skip


def small_model() -> torch.nn.Module:
    """A convolution with three quarters of its weights zero and a dense classifier."""
    torch.manual_seed(0)
    model = torch.nn.Sequential()
    model.add_module("conv", torch.nn.Conv2d(1, 8, 3, padding=1))
    model.add_module("relu", torch.nn.ReLU())
    model.add_module("flat", torch.nn.Flatten())
    model.add_module("fc", torch.nn.Linear(8 * 36, 4))
    with torch.no_grad():
        keep = torch.zeros(8, 9)
        keep[:4, :2] = 1
        keep[4:, 3:5] = 1
        model.get_submodule("conv").weight.mul_(keep.view(8, 1, 3, 3))
    return model.eval()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    folder.mkdir()
    torch.set_num_threads(1)
    model = small_model()
    save_file({n: p.detach().numpy() for n, p in model.named_parameters()}, folder / "model.safetensors")
    engine = openwork.compile(
        model, torch.zeros(1, 1, 6, 6), threads=1, tune="off", name="small", provenance={"model": "small"}
    )
    engine.save(folder / "small.openwork")
    (folder / "recipe.yaml").write_text("rules:\n- targets: all  # <b>not bold</b>\n")
    environment = {"cpu": "Test CPU", "threads": 1, "versions": {"torch": "2.13.0"}, "start": {"secret": 1}}
    (folder / "environment.json").write_text(json.dumps(environment))
    epochs = [
        {"epoch": 0, "phase": "dense", "train_loss": 2.0, "validation_accuracy": 0.5, "seconds": 1},
        {"epoch": 1, "phase": "shape", "train_loss": 1.0, "validation_accuracy": 0.75, "primal_residual": 3.0,
         "dual_residual": 0.0, "sparsity": 0.0, "seconds": 1},
        {"epoch": 2, "phase": "retrain", "train_loss": 0.5, "validation_accuracy": 0.9, "sparsity": 0.7, "seconds": 1},
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(e) + "\n" for e in epochs))
    layers = [
        {"name": "conv", "shape": [8, 1, 3, 3], "constraint": "Block(shape=(4, 1), sparsity=0.75)", "sparsity": 7 / 9,
         "violations": 0, "note": ""},
        {"name": "fc", "shape": [4, 288], "constraint": None, "sparsity": 0.0, "violations": 0, "note": ""},
    ]  # fmt: skip
    result = {
        "model": "small",
        "recipe": "tiny",
        "data": "patterns",
        "dense": {"test_accuracy": 0.9173},
        "final": {"test_accuracy": 0.9071, "sparsity": 0.8, "weights": 1000, "nonzero": 200},
        "layers": layers,
        "seconds": 3.0,
        "command": "openwork compress small --recipe tiny --data patterns",
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "bench.json").write_text(json.dumps(BENCH))
    return folder


@pytest.fixture
def run_folder(whole_run: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "small"))


@pytest.fixture
def kept(whole_run: Path) -> np.ndarray:
    """The mask of the small model's convolution, [8, 9]."""
    return small_model().get_submodule("conv").weight.detach().numpy().reshape(8, 9) != 0
