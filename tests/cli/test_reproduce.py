"""`openwork reproduce` from a user's seat, on a small network and a small set of images."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from seat import run

from openwork.cli import main
from openwork.cli.reproduce import _figure
from openwork.errors import UsageError
from openwork.reproductions.base import KEPT

MODEL_FILE = """
from collections import OrderedDict
import torch
from torch import nn


def block():
    return nn.Sequential(OrderedDict(conv1=nn.Conv2d(16, 16, 3, padding=1), bn=nn.BatchNorm2d(16), relu=nn.ReLU()))


def small():
    torch.manual_seed(0)
    stages = [("stem", nn.Conv2d(1, 16, 1))]
    for stage in (1, 3):
        stages.append((f"layer{stage}", nn.Sequential(block(), block(), block())))
    stages += [("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", nn.Linear(16, 4))]
    return nn.Sequential(OrderedDict(stages))
"""
QUICK = ("--epochs-scale", 0.1, "--threads", 1)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(MODEL_FILE)
    (tmp_path / "mine.py").write_text((Path(__file__).parent / "mine.py").read_text())
    return tmp_path


def test_rows_are_trained_once_measured_together_and_shown(home: Path) -> None:
    mine = ("--model", "small.py:small", "--data", "mine.py:patterns", *QUICK, "--json")
    rows = "4x1-75,patdnn-75,nm-90,circulant-75"
    done = run("reproduce", "patterns", "--rows", rows, *mine, cwd=home)
    assert done.code == 0, done.err
    found = {row["name"]: row for row in done.document["rows"]}
    assert list(found) == ["4x1-75", "patdnn-75", "circulant-75", "nm-90"]
    assert all(row["epochs"] == [0, 1, 1, 0] for row in found.values()) and done.document["epochs_scale"] == 0.1
    assert all(row["us"] > 0 and 0 < row["share_of_peak"] < 1.5 for row in found.values())
    stages, rest = 6 * 16 * 16 * 9, 16 + 64
    assert found["4x1-75"]["nonzero"] == stages // 4 + rest
    assert found["patdnn-75"]["nonzero"] == pytest.approx(stages / 4 + rest, rel=0.01)
    assert found["nm-90"]["nonzero"] == stages // 6 * 4 // 8 + stages // 6 * 2 // 16 + rest
    assert found["circulant-75"]["bytes"] == stages + 4 * rest  # a quarter of 4 bytes each

    folder = home / "runs/reproduce/patterns"
    page = (folder / "page.md").read_text()
    assert "openwork reproduce patterns --rows" in page and "a trial, no figure to quote" in page
    assert all(f"| {row['title']} | {row['accuracy']:.2%} |" in page for row in found.values())
    picture = (folder / "frontier.svg").read_text()
    assert picture.startswith("<svg") and all(name in picture for name in ("4x1", "patdnn", "circulant", "dense"))
    assert json.loads((folder / "document.json").read_text()) == done.document

    again = run("reproduce", "patterns", "--rows", "4x1-75", *mine, cwd=home)
    assert "is finished" in again.err and again.document["rows"][0]["accuracy"] == found["4x1-75"]["accuracy"]


def test_single_weights_are_held_against_whole_rows_and_columns(home: Path) -> None:
    mine = ("--model", "small.py:small", "--data", "mine.py:patterns", *QUICK, "--json")
    done = run("reproduce", "structure", "--rows", "single-4x,whole-4x", *mine, cwd=home)
    assert done.code == 0, done.err
    single, whole = done.document["rows"]
    for bits in ("32", "8", "4", "2"):
        assert 0 < whole["storage"][bits] < single["storage"][bits] < int(bits) * single["weights"]
    assert all(row["us"] > 0 for row in (single, whole)) and done.document["dense"]["times_dense"] == 1
    page = (home / "runs/reproduce/structure/page.md").read_text()
    assert "## Where they tie" in page and "a trial, no figure to quote" in page
    assert (home / "runs/reproduce/structure/latency.svg").read_text().startswith("<svg")


def test_every_row_is_listed_with_its_state(home: Path) -> None:
    done = run("reproduce", "--list", "--json", cwd=home)
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in done.document["rows"]}
    assert {"patterns/4x1-75", "patterns/unstructured-90", "lenet5/admm-71x", "cifar10_solvers/admm-4x1-8x"} <= set(
        rows
    )
    documents = [json.loads(path.read_text()) for path in KEPT.glob("*/document.json")]
    kept = {f"{document['name']}/{row['name']}" for document in documents for row in document["rows"]}
    for name, row in rows.items():
        assert row["state"] in (("met", "short", "run") if name in kept else ("not run",)), name
        assert (row["ours"] is None) == (name not in kept)
    assert rows["patterns/4x1-75"]["command"] == "openwork reproduce patterns --rows 4x1-75"
    paper = rows["lenet5/admm-71x"]
    assert (paper["paper"], paper["published"]) == ("1804.03294", 0.992)
    assert paper["published_rate"] == pytest.approx(71.16, abs=0.01)


def test_the_list_names_each_row_in_one_piece_in_a_narrow_terminal(home: Path) -> None:
    done = run("reproduce", "--list", cwd=home, COLUMNS="80")
    assert done.code == 0 and max(map(len, done.out.splitlines())) <= 80
    words = {line.split()[0] for line in done.out.splitlines() if line.strip()}
    assert {"lenet5", "structured-232x-purified", "progressive-unstructured-16x", "blocks-int8-untrained"} <= words


def test_figures_are_shown_with_what_they_are_held_against() -> None:
    assert _figure(0.992, None, 71.157) == "99.20 %, 71.16x"
    assert _figure(None, 0.002, 348) == "-0.20 points, 348x"
    assert _figure(None, None, None) == ""


DIGITS_FILE = """
import numpy as np
from openwork.data import ArrayData


def digits():
    g = np.random.default_rng(0)
    splits = [(g.integers(0, 255, (n, 1, 28, 28)).astype(np.uint8), np.arange(n) % 10) for n in (128, 40)]
    return ArrayData("small", *splits, mean=(0.5,), std=(0.5,), classes=tuple("0123456789"))
"""


def test_rows_of_papers_have_the_rate_that_they_are_held_against(home: Path) -> None:
    (home / "digits.py").write_text(DIGITS_FILE)
    trial = ("--data", "digits.py:digits", "--epochs-scale", 0.01, "--threads", 1, "--json")
    done = run("reproduce", "lenet5", "--rows", "admm-348x,structured-232x-purified", *trial, cwd=home)
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in done.document["rows"]}
    assert list(rows) == ["admm-348x", "structured-232x-purified"]
    assert rows["admm-348x"]["nonzero"] == 1237 and rows["admm-348x"]["epochs"] == [1, 1, 1, 0]
    assert sum(rows["structured-232x-purified"]["kept"].values()) == rows["structured-232x-purified"]["nonzero"]
    assert all(set(row["hardened"]) == {"test_accuracy"} for row in rows.values())
    page = (home / "runs/reproduce/lenet5/page.md").read_text()
    assert "a trial, no figure to quote" in page and "348.0x, " in page and "arxiv.org/abs/1907.02124" in page


def test_its_own_model_and_data_are_the_same_said_or_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = []

    def train(model: Any, recipe: Any, data: Any, folder: Path, **others: Any) -> Any:
        asked.append((data.train_size, others["model_name"], type(model).__name__))
        raise UsageError("enough")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openwork.data.resolve", lambda name, **how: SimpleNamespace(
        train_size=60_000 - how.get("holdout", 0), example_input=torch.zeros(1, 1, 28, 28)
    ))  # fmt: skip
    monkeypatch.setattr("openwork.training.compress.compress", train)
    for said in ([], ["--data", "mnist", "--model", "lenet5"]):
        assert main.run(["reproduce", "lenet5", "--rows", "admm-71x", "--folder", "runs", *said]) == 2
    assert asked == [(55_000, "lenet5", "LeNet5")] * 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pattern",), "unknown reproduction 'pattern'; did you mean patterns?"),
        (("patterns", "--rows", "5x1-75"), "unknown row '5x1-75'; did you mean"),
        (("lenet5", "--publish", "pages", "--epochs-scale", 0.1), "a trial is not published; run it without"),
        (
            (),
            "name a comparison (cifar10_quantization, cifar10_solvers, gpusq_vit, lenet5, patterns, quantization, "
            "resnet18_cifar10, structure), or ask for --list",
        ),
    ],
)
def test_mistakes_are_one_line(home: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run("reproduce", *arguments, cwd=home)
    assert done.code == 2 and words in done.err and done.err.count("error:") == 1
