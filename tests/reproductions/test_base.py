"""What a reproduction keeps of its rows: states, documents that grow row by row, and what is published."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from openwork.errors import UsageError
from openwork.recipes.recipe import Recipe, Rule
from openwork.reproductions import base
from openwork.training.progress import Silent
from openwork.training.result import Layer, Result

RECIPE = Recipe(rules=[Rule(targets="all", constraint={"kind": "unstructured", "sparsity": 0.9})])
OURS = {
    "accuracy": 0.991,
    "dense_accuracy": 0.992,
    "weights": 1000,
    "nonzero": 10,
    "storage": {"codes": 100},
    "quantized": {"float32": {"test_accuracy": 0.993}},
}


@pytest.mark.parametrize(
    ("asked", "state"),
    [
        ({}, "run"),
        ({"published": 0.991}, "met"),
        ({"published": 0.9911}, "short"),
        ({"published": 0.99, "published_rate": 100}, "met"),
        ({"published": 0.99, "published_rate": 101}, "short"),
        ({"published": 0.995, "published_rate": 100}, "short"),
        ({"published_drop": 0.002, "published_rate": 100}, "met"),
        ({"published_drop": 0.0, "published_rate": 100}, "short"),
        ({"published_rate": 100, "bar": 0.99}, "met"),
        ({"bar": 0.995}, "short"),
        ({"published_storage": 40}, "met"),
        ({"published_storage": 41}, "short"),
        ({"quantization_drop": 0.0021}, "met"),
        ({"quantization_drop": 0.0005}, "short"),
    ],
)
def test_a_row_is_met_only_if_rate_and_accuracy_both_hold(asked: dict[str, float], state: str) -> None:
    assert base.Row("r", "a row", RECIPE, **asked).state(OURS) == state  # type: ignore[arg-type]


class Small(base.Reproduction):
    """Three rows that come one by one."""

    TITLE: ClassVar[str] = "Small"
    MODEL: ClassVar[str] = "lenet5"
    DATA: ClassVar[str] = "mnist"
    TOGETHER: ClassVar[bool] = False

    def rows(self) -> list[base.Row]:
        return [base.Row(name, f"row {name}", RECIPE, published=0.9, published_rate=10) for name in ("a", "b", "c")]

    def page(self, document: Mapping[str, Any]) -> dict[str, str]:
        return {"page.md": " ".join(row["name"] for row in document["rows"])}

    @classmethod
    def name(cls) -> str:
        return "small"


def result(accuracy: float, seconds: float = 1.0) -> Result:
    layer = Layer("fc", (10, 10), "Unstructured", 0.93, 0, bytes=28)
    return Result(
        torch.nn.Identity(), "m", "r", "d", 0.95, accuracy, 100, 7, (layer,), (), seconds,
        hardened={"test_accuracy": 0.5},
    )  # fmt: skip


def reproduce(rows: tuple[str, ...], folder: Path, command: str, accuracies: Mapping[str, float], **order: Any) -> Any:
    asked = base.Order(rows=rows, folder=folder, command=command, **order)
    return base.reproduce(Small(), asked, lambda row, where: result(accuracies[row.name]), torch.zeros(1), Silent())


def test_rows_come_to_a_document_one_by_one_and_keep_the_command_that_trained_them(tmp_path: Path) -> None:
    first = reproduce(("b",), tmp_path, "first", {"b": 0.95})
    assert [row["name"] for row in first["rows"]] == ["b"]
    row = first["rows"][0]
    assert row["kept"] == {"fc": 7} and row["hardened"] == {"test_accuracy": 0.5} and row["state"] == "met"
    both = reproduce(("a", "b"), tmp_path, "second", {"a": 0.8, "b": 0.95})
    assert [(r["name"], r["command"], r["state"]) for r in both["rows"]] == [
        ("a", "second", "short"),
        ("b", "first", "met"),
    ]
    assert (tmp_path / "small/page.md").read_text() == "a b"

    class Renamed(Small):
        def rows(self) -> list[base.Row]:
            return [replace(row, title="better words", published=0.96) for row in super().rows()]

    kept = base.Order(rows=("b",), folder=tmp_path, command="now")
    base.reproduce(Renamed(), kept, lambda row, where: result(0.95), torch.zeros(1), Silent())
    row = json.loads((tmp_path / "small/document.json").read_text())["rows"][1]
    assert (row["title"], row["state"], row["command"]) == ("better words", "short", "first")
    again = reproduce(("b",), tmp_path, "third", {"b": 0.96})  # trained anew
    assert [r["command"] for r in again["rows"]] == ["second", "third"]


def test_a_trial_starts_a_document_of_its_own_and_is_not_published(tmp_path: Path) -> None:
    reproduce(("a",), tmp_path, "real", {"a": 0.95})
    trial = reproduce(("b",), tmp_path, "quick", {"b": 0.95}, epochs_scale=0.1)
    assert [(row["name"], row["state"]) for row in trial["rows"]] == [("b", "trial")]
    with pytest.raises(UsageError, match="a trial is not published; run it without --epochs-scale, --model and --data"):
        base.publish(Small(), trial, tmp_path / "kept")
    assert base.is_trial(Small(), {**trial, "epochs_scale": 1, "data": "digits"})


def test_what_is_published_adds_to_what_was(tmp_path: Path) -> None:
    for row in ("a", "b"):
        home = tmp_path / row  # two machines
        base.publish(Small(), reproduce((row,), home, row, {row: 0.95}), tmp_path / "kept")
    document = json.loads((tmp_path / "kept/small/document.json").read_text())
    assert [row["name"] for row in document["rows"]] == ["a", "b"]
    assert (tmp_path / "kept/small/page.md").read_text() == "a b"


def test_the_list_prefers_what_was_run_here_and_says_what_is_a_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base.plugins, "names", lambda room: ("small",))
    monkeypatch.setattr(base, "find", lambda name: Small())
    here, kept = tmp_path / "here", tmp_path / "kept"

    def states() -> list[tuple[str, float | None]]:
        return [(row["state"], row["ours"]) for row in base.known(here, kept)]

    assert states() == [("not run", None)] * 3
    base.publish(Small(), reproduce(("a", "b"), tmp_path / "then", "x", {"a": 0.95, "b": 0.8}), kept)
    assert states() == [("met", 0.95), ("short", 0.8), ("not run", None)]
    reproduce(("b", "c"), here, "y", {"b": 0.7, "c": 0.7}, epochs_scale=0.1)
    assert states() == [("met", 0.95), ("short", 0.8), ("trial", 0.7)]
    reproduce(("b",), here, "z", {"b": 0.92})
    assert states() == [("met", 0.95), ("met", 0.92), ("not run", None)]
    row = base.known(here, kept)[1]
    assert row["command"] == "openwork reproduce small --rows b" and row["when"] and row["our_rate"] == 100 / 7
    assert (row["published"], row["published_rate"]) == (0.9, 10)


def test_figures_of_an_earlier_recipe_are_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.plugins, "names", lambda room: ("small",))
    monkeypatch.setattr(base, "find", lambda name: Changed())

    class Changed(Small):
        """Row b is trained for longer; c has another name only."""

        def rows(self) -> list[base.Row]:
            a, b, c = super().rows()
            longer = RECIPE.model_copy(update={"schedule": RECIPE.schedule.model_copy(update={"retrain_epochs": 99})})
            return [a, replace(b, recipe=longer), replace(c, recipe=RECIPE.model_copy(update={"name": "other"}))]

    def earlier(reproduction: base.Reproduction) -> list[str]:
        base.write(reproduction, json.loads((tmp_path / "small/document.json").read_text()), tmp_path / "small")
        found = json.loads((tmp_path / "small/document.json").read_text())["earlier"]
        assert isinstance(found, list)
        return found

    reproduce(("a", "b", "c"), tmp_path, "x", {"a": 0.95, "b": 0.95, "c": 0.95})
    assert earlier(Small()) == [] and earlier(Changed()) == ["b"]
    assert [(row["state"], row["earlier_recipe"]) for row in base.known(tmp_path, tmp_path / "none")] == [
        ("met", False), ("met", True), ("met", False),
    ]  # fmt: skip
    order = base.Order(rows=("b",), folder=tmp_path)
    base.reproduce(Changed(), order, lambda row, where: result(0.96), torch.zeros(1), Silent())
    assert earlier(Changed()) == []


def test_rows_of_side_by_side_measurements_are_of_one_run(tmp_path: Path) -> None:
    class Together(Small):
        TOGETHER: ClassVar[bool] = True

    for row in ("a", "b"):
        order = base.Order(rows=(row,), folder=tmp_path)
        found = base.reproduce(Together(), order, lambda row, where: result(0.95), torch.zeros(1), Silent())
    assert [r["name"] for r in found["rows"]] == ["b"]


def test_an_option_of_a_row_reaches_its_model() -> None:
    row = replace(Small().rows()[0], model="cifar10_resnet20", options={"weights": None, "width": 8})
    from openwork import models

    assert row.model is not None
    assert models.resolve(row.model, **row.options).conv1.out_channels == 8
