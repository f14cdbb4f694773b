"""Each command does its work, from the user's seat."""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from seat import DATA, MODEL, RECIPE, Done, run

import openwork


def test_compress_leaves_everything_in_the_run_folder(home: Path, compressed: Done) -> None:
    found, folder = compressed.document, home / "runs/tiny"
    expected = {
        "recipe.yaml", "environment.json", "metrics.jsonl", "checkpoint.safetensors", "model.safetensors",
        "result.json", "model.openwork", "bench.json", "report.html",
    }  # fmt: skip
    assert expected == {path.name for path in folder.iterdir()}
    assert found["report"] == "runs/tiny/report.html" and found["artifact"] == "runs/tiny/model.openwork"
    weight = load_file(folder / "model.safetensors")["conv.weight"]
    assert np.count_nonzero(weight) == weight.size // 2
    blocks = (weight.reshape(2, 4, -1) != 0).sum(1)
    assert set(np.unique(blocks)) <= {0, 4}, "zeros are not in 4x1 blocks"
    assert found["final"]["test_accuracy"] > 0.9 and found["dense"]["test_accuracy"] > 0.9
    assert [side["name"] for side in found["bench"]["sides"]] == ["openwork", "pytorch"]
    assert found["bytes"]["artifact"] == (folder / "model.openwork").stat().st_size
    assert "openwork compress" in found["command"]


def test_compress_tells_progress_on_stderr(compressed: Done) -> None:
    epochs = [line for line in compressed.err.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in epochs] == [
        "epoch 1/4 dense", "epoch 2/4 dense", "epoch 3/4 shape", "epoch 4/4 retrain",
    ]  # fmt: skip


def test_a_finished_run_is_not_trained_again(home: Path, compressed: Done, artifact: Path) -> None:
    before = artifact.stat().st_mtime_ns
    again = run(
        *("compress", MODEL, "--recipe", RECIPE, "--data", DATA, "--run-dir", "runs/tiny", "--threads", 1),
        *("--against", "none", "--repeats", 3),
        cwd=home,
    )
    assert again.code == 0, again.err
    assert (
        "is finished" in again.err and "epoch" not in again.err and "compiled from these weights already" in again.err
    )
    assert artifact.stat().st_mtime_ns == before
    accuracy = compressed.document["final"]["test_accuracy"]
    assert f"{100 * accuracy:.2f} %" in again.out and "runs/tiny/report.html" in again.out


def test_compile_of_a_run_folder_gives_the_same_outputs(home: Path, artifact: Path) -> None:
    done = run("compile", "runs/tiny", "-o", "again.openwork", "--batch", 3, "--tune", "off", "--json", cwd=home)
    assert done.code == 0, done.err
    assert done.document["inputs"][0]["shape"] == [3, 1, 8, 8]
    assert done.document["bytes"] == (home / "again.openwork").stat().st_size
    x = np.random.default_rng(0).standard_normal((3, 1, 8, 8), dtype=np.float32)
    ours, theirs = openwork.load(artifact, threads=1)(x), openwork.load(home / "again.openwork", threads=1)(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_compile_of_a_model_with_given_weights(home: Path, artifact: Path) -> None:
    done = run(
        *(
            "compile",
            MODEL,
            "--weights",
            "runs/tiny/model.safetensors",
            "-o",
            "given.openwork",
            "--input-shape",
            "1,8,8",
        ),
        *("--tune", "off"),
        cwd=home,
    )
    assert done.code == 0, done.err
    assert "given.openwork" in done.out and "(1, 1, 8, 8)" in done.out
    x = np.ones((1, 1, 8, 8), np.float32)
    ours, theirs = openwork.load(artifact, threads=1)(x), openwork.load(home / "given.openwork", threads=1)(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.fixture
def without_torch(tmp_path: Path) -> str:
    """A PYTHONPATH in which importing torch fails."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "torch.py").write_text("raise ImportError('torch was imported')\n")
    return str(tmp_path / "blocked")


def test_run_on_an_array_needs_no_torch(home: Path, artifact: Path, without_torch: str) -> None:
    x = np.random.default_rng(0).standard_normal((5, 1, 8, 8), dtype=np.float32)
    np.save(home / "x.npy", x)
    path = f"{without_torch}:{Path(openwork.__file__).parent.parent}"
    blocked = run("compile", MODEL, "-o", "y.openwork", cwd=home, PYTHONPATH=path)
    assert "torch was imported" in blocked.err, "the block does not work, so the test below could not fail"
    done = run("run", artifact, "--input", "x.npy", "--output", "y.npy", "--json", cwd=home, PYTHONPATH=path)
    assert done.code == 0, done.err
    assert done.document == {"outputs": [{"shape": [5, 4], "values": None}], "output": "y.npy"}
    np.testing.assert_array_equal(np.load(home / "y.npy"), openwork.load(artifact)(x))
    for arguments in (("explain", artifact, "--json"), ("--version",), ("--help",), ("doctor", "--json")):
        assert run(*arguments, cwd=home, PYTHONPATH=path).code == 0, arguments


def test_run_prints_values_without_an_output_file(home: Path, artifact: Path) -> None:
    np.save(home / "one.npy", np.ones((1, 1, 8, 8)))
    done = run("run", artifact, "--input", "one.npy", "--json", cwd=home)
    expected = openwork.load(artifact)(np.ones((1, 1, 8, 8), np.float32))
    np.testing.assert_allclose(done.document["outputs"][0]["values"], expected, rtol=1e-6)


def test_run_and_explain_choose_a_level(home: Path, artifact: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 4))
    sparser = copy.deepcopy(model)
    with torch.no_grad():
        sparser[1].weight[:, ::2] = 0
    engine = openwork.compile(model, torch.zeros(1, 1, 8, 8), levels=[sparser], threads=1, tune="off")
    engine.save(home / "nested.openwork")
    x = np.random.default_rng(0).standard_normal((2, 1, 8, 8), dtype=np.float32)
    np.save(home / "two.npy", x)
    for level in (1, 2):
        arguments = ("nested.openwork", "--level", level, "--json")
        done = run("run", *arguments, "--input", "two.npy", cwd=home)
        np.testing.assert_allclose(done.document["outputs"][0]["values"], engine(x, level=level), rtol=1e-6)
        assert run("run", *arguments, "--data", DATA, cwd=home).document["examples"] == 32
        rows = run("explain", *arguments, cwd=home).document["rows"]
        assert [row["nonzero"] for row in rows if row["weights"]] == [256 // level]
    done = run("explain", artifact, "--level", 2, cwd=home)
    assert done.code == 2 and "level=2 is not in 1..1" in done.err


def test_a_nested_run_becomes_one_artifact_of_several_levels(home: Path) -> None:
    recipe = """
rules: [{targets: all, constraint: {kind: nested, of: {kind: unstructured, sparsity: 0.5}, sparser: [0.8]}}]
schedule: {shape_epochs: 1, retrain_epochs: 1, batch_size: 16}
"""
    (home / "nested.yaml").write_text(recipe)
    done = run(
        "compress",
        MODEL,
        "--recipe",
        "nested.yaml",
        "--data",
        DATA,
        "--run-dir",
        "runs/nested",
        "--against",
        "none",
        cwd=home,
    )
    assert done.code == 0, done.err
    assert "level 2: test accuracy" in done.err
    (made,) = (home / "runs/nested").glob("*.openwork")
    assert openwork.load(made, threads=1).levels == 2
    done = run("compile", "runs/nested", "-o", "levels.openwork", "--json", cwd=home)
    assert done.code == 0 and done.document["levels"] == 2, done.err
    wanted = json.loads((home / "runs/nested/result.json").read_text())
    for level, accuracy in enumerate([wanted["final"]["test_accuracy"], wanted["levels"][0]["test_accuracy"]], 1):
        done = run("run", "levels.openwork", "--data", DATA, "--level", level, "--json", cwd=home)
        assert done.document["accuracy"] == accuracy


def test_run_on_data_measures_the_accuracy_of_the_run(home: Path, artifact: Path, compressed: Done) -> None:
    done = run("run", artifact, "--data", DATA, "--json", cwd=home)
    assert done.code == 0, done.err
    assert done.document["examples"] == 32
    assert done.document["accuracy"] == compressed.document["final"]["test_accuracy"]


def test_bench_measures_all_sides(home: Path, artifact: Path) -> None:
    done = run("bench", artifact, "--against", "pytorch", "--model", MODEL, "--repeats", 3, "--json", cwd=home)
    assert done.code == 0, done.err
    sides = done.document["sides"]
    assert [side["name"] for side in sides] == ["openwork", "pytorch", "pytorch, dense model"]
    assert all(side["low_us"] <= side["median_us"] <= side["high_us"] for side in sides)
    assert sides[1]["difference"] < 1e-4


def test_explain_names_each_layer(home: Path, artifact: Path) -> None:
    rows = run("explain", artifact, "--json", cwd=home).document["rows"]
    layers = {row["name"]: row for row in rows if row.get("weights")}
    assert set(layers) == {"conv", "fc"}
    assert layers["conv"]["sparsity"] == 0.5
    text = run("explain", artifact, cwd=home).out
    for row in rows:
        assert any(row["name"] in line and row["kernel"] in line for line in text.splitlines()), row


def test_report_can_be_written_again(home: Path, artifact: Path) -> None:
    done = run("report", "runs/tiny", "-o", "page.html", cwd=home)
    assert done.code == 0 and done.out.strip() == "wrote page.html"
    assert "Left dense by the recipe" in (home / "page.html").read_text()


@pytest.fixture
def three_pairs(tmp_path: Path) -> str:
    """A data root with the STS benchmark, three pairs short."""
    table = "sentence1\tsentence2\tscore\nA man sings.\tA person sings.\t4.5\nA man sings.\tRain falls.\t0\n"
    (tmp_path / "stsb").mkdir()
    for name in ("train", "dev", "test"):
        (tmp_path / "stsb" / f"{name}.tsv").write_text(table + "A cat sleeps.\tA dog sleeps.\t2\n")
    return str(tmp_path)


def test_run_on_sentences_needs_a_sentence_encoder(home: Path, artifact: Path, three_pairs: str) -> None:
    done = run("run", artifact, "--data", "stsb", cwd=home, OPENWORK_DATA=three_pairs)
    assert done.code == 2 and "mine.py:model" in done.err and "has no tokenizer; use a sentence encoder" in done.err


@pytest.mark.slow
def test_run_on_sentences_measures_the_correlation_with_people(home: Path, three_pairs: str) -> None:
    arguments = ("minilm", "-o", "minilm.openwork", "--length", 16, "--batch", 2, "--tune", "off", "--threads", 1)
    assert run("compile", *arguments, cwd=home).code == 0
    arguments = ("minilm.openwork", "--data", "stsb", "--json")
    document = run("run", *arguments, cwd=home, OPENWORK_DATA=three_pairs).document
    assert document == {"data": "stsb", "spearman": pytest.approx(1), "examples": 3}
    text = run("run", *arguments[:-1], cwd=home, OPENWORK_DATA=three_pairs).out
    assert text == "Spearman correlation on stsb: 1.0000 over 3 test pairs\n"


def test_data_lists_what_is_here(tmp_path: Path) -> None:
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "data" / "mnist" / "file").touch()
    (tmp_path / "data" / "cifar10").mkdir()
    (tmp_path / "data" / "glue" / "stsb").mkdir(parents=True)
    (tmp_path / "data" / "glue" / "stsb" / "test.tsv").touch()
    listed = run("data", "list", "--json", cwd=tmp_path, OPENWORK_DATA=str(tmp_path / "data")).document
    there = {row["name"]: row["there"] for row in listed["data"]}
    assert there["digits"] and there["mnist"]
    assert there["stsb"], "a set may lie in the folder of its collection"
    assert not there["cifar10"] and not there["weights"], "an empty or absent folder is not data"
    text = run("data", "list", cwd=tmp_path, OPENWORK_DATA=str(tmp_path / "data")).out
    assert "openwork data get cifar10" in text
    path = run("data", "path", cwd=tmp_path, OPENWORK_DATA=str(tmp_path / "data"))
    assert path.out.strip() == str(tmp_path / "data")


def test_doctor_looks_at_everything_and_exits_1_where_something_needed_is_missing(
    home: Path, without_torch: str
) -> None:
    found = run("doctor", "--json", cwd=home)
    assert found.code == 0 and found.document["ok"]
    states = {row["name"]: row["state"] for row in found.document["findings"]}
    assert states["torch"] == states["native library"] == states["python"] == "ok"
    assert {"compiler", "cpu", "threads", "data", "peer onnxruntime", "peer pytorch"} <= set(states)
    # Without site-packages' metadata torch counts as missing.
    script = (
        "import importlib.metadata as m, sys; real = m.version\n"
        "def version(n):\n    if n == 'torch': raise m.PackageNotFoundError(n)\n    return real(n)\n"
        "m.version = version\nfrom openwork.cli.main import run; sys.exit(run(['doctor']))"
    )
    import subprocess

    from seat import environment

    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "pip install torch" in done.stdout


def test_version_and_help_are_quick_and_on_stdout(home: Path) -> None:
    assert run("--version", cwd=home).out.strip() == f"openwork {openwork.__version__}"
    text = run("--help", cwd=home).out
    for name in ("bench", "compile", "compress", "data", "demo", "doctor", "explain", "report", "run"):
        assert f" {name} " in text
    assert run(cwd=home).out == text


def test_json_is_strict(home: Path, compressed: Done) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(compressed.out, parse_constant=refuse)
