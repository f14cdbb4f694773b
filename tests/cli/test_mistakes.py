"""A mistake gets one line that says what is wrong and what would be right; exit code 2; nothing is lost."""

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from seat import DATA, HERE, MODEL, RECIPE, Done, run

from openwork import plugins
from openwork.cli import main

MINE = HERE / "mine.py"


Mistake = Callable[..., str]


def order(model: object = MODEL, recipe: object = RECIPE, data: object = DATA) -> tuple[object, ...]:
    return ("compress", model, "--recipe", recipe, "--data", data, "--run-dir", "runs/bad", "--threads", 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "lenet"}, ["'lenet'", "did you mean lenet5"]),
        ({"model": "nowhere.py:model"}, ["nowhere.py", "no file"]),
        ({"model": f"{MINE}:modle"}, ["modle", "has no function"]),
        ({"model": f"{MINE}:broken"}, ["the user's own mistake"]),
        ({"model": f"{MINE}:not_a_model"}, ["returned int"]),
        ({"model": f"{MINE}:nan_weights"}, ["conv.weight", "NaN"]),
        ({"model": f"{MINE}:no_layers"}, ["no convolution, linear, recurrent or attention layer"]),
        ({"recipe": "dmo"}, ["'dmo'", "did you mean demo"]),
        ({"recipe": "nowhere.yaml"}, ["nowhere.yaml", "No such file"]),
        ({"data": "digts"}, ["'digts'", "did you mean digits"]),
        ({"data": "mnist"}, ["mnist", "openwork data get mnist"]),
        ({"data": f"{MINE}:model"}, ["Tiny"]),
    ],
    ids=lambda value: str(next(iter(value.values()))).rpartition("/")[2] if isinstance(value, dict) else "",
)
def test_wrong_names(mistake: Mistake, tmp_path: Path, change: dict[str, str], said: list[str]) -> None:
    line = mistake(*order(**change), cwd=tmp_path)
    for part in said:
        assert part in line, line
    assert not (tmp_path / "runs").exists(), "a mistake must not leave a run folder behind"


@pytest.mark.parametrize(
    ("wrong", "right", "said"),
    [
        ("sparsity: 0.5", "sparsity: 1.5", ["sparsity", "1.5"]),
        ("sparsity: 0.5", "sparsity: 0", ["sparsity", "0"]),
        ("shape: [4, 1]", "shape: [3, 1]", ["3", "8"]),
        ("kind: block", "kind: blok", ["blok", "block"]),
        ("targets: conv", "targets: cnov", ["cnov", "conv"]),
        ("kind: admm", "kind: admn", ["admn", "admm"]),
        ("batch_size: 16", "batch_sise: 16", ["batch_sise", "batch_size"]),
        ("name: tiny", "name: [", ["YAML"]),
    ],
)
def test_wrong_recipes(mistake: Mistake, tmp_path: Path, wrong: str, right: str, said: list[str]) -> None:
    text = Path(RECIPE).read_text()
    assert wrong in text
    (tmp_path / "wrong.yaml").write_text(text.replace(wrong, right))
    line = mistake(*order(recipe="wrong.yaml"), cwd=tmp_path)
    for part in said:
        assert part in line, line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compres",), ["No such command", "compress"]),
        (("compress", "lenet5"), ["--recipe"]),
        (("compress", "lenet5", "--recipe", "demo", "--data", "digits", "--threads", "0"), ["--threads"]),
        (("compress", "lenet5", "--recipe", "demo", "--data", "digits", "--device", "gpu"), ["device 'gpu'", "cpu"]),
        (("reproduce", "lenet5", "--device", "cuda:9"), ["device 'cuda:9'", "known: cpu"]),
        (("explain", "x.openwork", "--jsn"), ["--jsn", "--json"]),
        (("run", "x.openwork"), ["--input", "--data"]),
        (("run", "x.openwork", "--input", "x.npy"), ["x.openwork"]),
        (("compile", "runs/nowhere", "-o", "x.openwork"), ["runs/nowhere", "no run folder"]),
        (("report", "nowhere"), ["nowhere", "no run folder"]),
        (("compile", "runs", "-o", "x.openwork"), ["result.json"]),
        (("compile", "lenet5", "-o", "x.openwork", "--length", "3"), ["lenet5", "'length'"]),
        (("compile", "lenet5", "-o", "x", "--length", "3", "--input-shape", "3"), ["--input-shape", "--length"]),
        (("bench", "x.openwork", "--against", "onnxruntimes"), ["onnxruntimes", "did you mean onnxruntime"]),
        (("data", "get", "cifar"), ["'cifar'", "did you mean cifar10"]),
        (("data", "get"), ["mnist"]),
        (("data", "lst"), ["lst"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_wrong_arguments(mistake: Mistake, tmp_path: Path, arguments: tuple[str, ...], said: list[str]) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "x.openwork").touch()
    line = mistake(*arguments, cwd=tmp_path)
    for part in said:
        assert part in line, line


READERS = [
    name for name in main.commands() if "artifact" in inspect.signature(plugins.module("cli", name).command).parameters
]
"""Commands that take an artifact."""


def test_these_commands_take_an_artifact() -> None:
    assert set(READERS) >= {"bench", "explain", "retune", "run"}


@pytest.mark.parametrize("command", READERS)
def test_no_artifact_there(mistake: Mistake, tmp_path: Path, command: str) -> None:
    """The path is named before what else may be wrong."""
    (tmp_path / "run").mkdir()
    for options in ((), ("--threads", 1)):
        line = mistake(command, "no where.openwork", *options, cwd=tmp_path)
        assert "there is no file no where.openwork" in line
        assert line.endswith("openwork compile MODEL -o 'no where.openwork'")
    assert mistake(command, "run", cwd=tmp_path) == "run is a folder; give an artifact: a .openwork file"
    (tmp_path / "run/tiny.openwork").touch()
    assert mistake(command, "run", cwd=tmp_path) == "run is a folder; give an artifact: run/tiny.openwork"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (f"{MINE}:undecided", ["captured", "control flow"]),
        (f"{MINE}:nan_weights", ["conv.weight"]),
        (f"{MINE}:empty_layer", ["0.weight"]),
    ],
    ids=["control flow", "NaN", "zero-size"],
)
def test_models_that_cannot_be_compiled(mistake: Mistake, tmp_path: Path, model: str, said: list[str]) -> None:
    (tmp_path / "old.openwork").write_bytes(b"what was there before")
    line = mistake("compile", model, "-o", "old.openwork", cwd=tmp_path)
    for part in said:
        assert part in line, line
    assert (tmp_path / "old.openwork").read_bytes() == b"what was there before"


def test_a_model_that_cannot_be_exported_keeps_its_run(mistake: Mistake, tmp_path: Path) -> None:
    assert "captured" in mistake(*order(f"{MINE}:undecided"), cwd=tmp_path)
    assert (tmp_path / "runs/bad/model.safetensors").is_file(), "the trained weights must not be lost"
    report = run("report", "runs/bad", cwd=tmp_path)
    assert report.code == 0 and "no .openwork artifact" in (tmp_path / "runs/bad/report.html").read_text()


@pytest.mark.parametrize("content", [b"", b"not an artifact", b"\x08\0\0\0\0\0\0\0{}      ", bytes(4096)])
def test_files_that_are_no_artifacts(mistake: Mistake, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.openwork").write_bytes(content)
    assert "x.openwork" in mistake("explain", "x.openwork", cwd=tmp_path)


def test_a_cut_artifact(mistake: Mistake, tmp_path: Path, artifact: Path) -> None:
    (tmp_path / "x.openwork").write_bytes(artifact.read_bytes()[:-100])
    assert "x.openwork" in mistake("explain", "x.openwork", cwd=tmp_path)


@pytest.mark.parametrize(
    ("array", "said"),
    [(np.zeros((1, 3, 8, 8)), ["(1, 3, 8, 8)"]), (np.zeros((0, 2, 8, 8)), ["(0, 2, 8, 8)"]), (None, ["not a .npy"])],
    ids=["shape", "empty and of another shape", "no array"],
)
def test_wrong_inputs(
    mistake: Mistake, tmp_path: Path, artifact: Path, array: np.ndarray | None, said: list[str]
) -> None:
    if array is None:
        (tmp_path / "x.npy").write_text("hello")
    else:
        np.save(tmp_path / "x.npy", array)
    line = mistake("run", artifact, "--input", "x.npy", cwd=tmp_path)
    for part in said:
        assert part in line, line


def test_data_of_another_shape(mistake: Mistake, tmp_path: Path, artifact: Path) -> None:
    line = mistake("run", artifact, "--data", "digits", cwd=tmp_path)
    assert "(1, 28, 28)" in line and "(1, 8, 8)" in line


def test_a_run_folder_of_another_recipe(mistake: Mistake, home: Path, compressed: Done, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(Path(RECIPE).read_text().replace("sparsity: 0.5", "sparsity: 0.75"))
    other = ("compress", MODEL, "--recipe", tmp_path / "other.yaml", "--data", DATA, "--run-dir", "runs/tiny")
    before = {path.name: path.read_bytes() for path in (home / "runs/tiny").iterdir()}
    assert "another run" in mistake(*other, cwd=home)
    assert {path.name: path.read_bytes() for path in (home / "runs/tiny").iterdir()} == before


def test_a_place_that_cannot_be_written_to(mistake: Mistake, home: Path, compressed: Done) -> None:
    line = mistake("report", "runs/tiny", "-o", "/proc/report.html", cwd=home)
    assert "cannot write /proc/report.html" in line


def test_json_mode_says_the_mistake_as_a_document(tmp_path: Path) -> None:
    done = run("explain", "nowhere.openwork", "--json", cwd=tmp_path)
    assert done.code == 2
    assert list(done.document) == ["error"] and "nowhere.openwork" in done.document["error"]
    assert done.err.strip() == f"error: {done.document['error']}"


def test_usage_mistakes_in_json_mode_too(tmp_path: Path) -> None:
    done = run("explain", "--json", cwd=tmp_path)
    assert done.code == 2 and "ARTIFACT" in done.document["error"]


def test_a_mistake_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The tests above call `main.run`; this one is the whole program."""
    done = run("compress", MODEL, "--recipe", "dmo", "--data", DATA, cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.strip().splitlines()[-1].startswith("error: unknown recipe 'dmo'; did you mean demo?")
