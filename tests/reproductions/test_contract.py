"""What every reproduction owes: rows with names that a command can ask for, and a page about any of them."""

import re
from pathlib import Path
from typing import Any

import pytest

from openwork import plugins
from openwork.recipes.recipe import Recipe
from openwork.reproductions import base

EVERY = [base.find(name) for name in plugins.names(base.ROOM)]
every = pytest.mark.parametrize("reproduction", EVERY, ids=lambda r: r.name())


@every
def test_rows_have_names_for_a_folder_and_recipes_that_can_be_written(reproduction: base.Reproduction) -> None:
    rows = reproduction.rows()
    assert len({row.name for row in rows}) == len(rows) > 1
    for row in rows:
        assert re.fullmatch(r"[a-z0-9-]+", row.name)
        assert Recipe.parse(row.recipe.dump()) == row.recipe
        assert not row.paper or re.fullmatch(r"\d{4}\.\d{5}", row.paper)
    assert reproduction.MODEL in plugins.names("models") and reproduction.DATA in plugins.names("data")
    assert all(row.model is None or row.model in plugins.names("models") for row in rows)


def document(reproduction: base.Reproduction, rows: list[base.Row], scale: float) -> dict[str, Any]:
    figures = {
        "dense_accuracy": 0.99,
        "hardened": {"test_accuracy": 0.5},
        "accuracy": 0.991,
        "weights": 1000,
        "nonzero": 9,
        "storage": {"codes": 10, "all": 20, "files": 300},
        "pruned": {"weights": 1000, "bytes": 625},
        "quantized": {"float32": {"test_accuracy": 0.992}, "calibrated": {"test_accuracy": 0.9}},
        "kept": {"fc": 9},
        "seconds": 61.0,
        "seed": 0,
        "epochs": [1, 2, 3],
        "command": "openwork reproduce",
        "when": "2026-01-02T03:04:05",
        "processor": "a machine",
        "threads": 2,
    }
    asked = ("name", "title", "paper", "published", "published_drop", "published_rate", "bar", "note")
    found = [
        {**{key: getattr(row, key) for key in asked}, "recipe": row.digest, **figures, "state": row.state(figures)}
        for row in rows
    ]
    return {"title": reproduction.TITLE, "epochs_scale": scale, "rows": found}


@every
def test_there_is_a_page_about_any_of_its_rows(reproduction: base.Reproduction) -> None:
    if reproduction.TOGETHER:
        pytest.skip("its figures are those of a measurement")
    rows = list(reproduction.rows())
    for some in (rows, rows[:1], rows[-1:]):
        files = reproduction.page(document(reproduction, some, 1))
        page = files["page.md"]
        assert all(row.title in page for row in some) and "trial" not in page and "Not run" not in page
        assert all(name in files for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page))
        widths = [line.count(" | ") for line in page.splitlines() if line.startswith("| ")]
        assert widths and "2026-01-02" in page and "1.0" in page
    assert "a trial, no figure to quote" in reproduction.page(document(reproduction, rows, 0.1))["page.md"]


@every
def test_a_page_names_the_rows_that_are_not_on_it(reproduction: base.Reproduction, tmp_path: Path) -> None:
    if reproduction.TOGETHER:
        pytest.skip("its figures are those of a measurement")
    rows = list(reproduction.rows())
    there = {**document(reproduction, rows[:1], 1), "model": "m", "data": "d"}
    base.write(reproduction, there, tmp_path)
    absent = ", ".join(row.name for row in rows[1:])
    page = (tmp_path / "page.md").read_text()
    assert (f"Not run yet: {absent}." in page) if absent else ("Not run" not in page)
    assert "earlier recipe" not in page
    there["rows"][0]["recipe"] = "another"
    base.write(reproduction, there, tmp_path / "earlier")
    assert (
        f"Figures of an earlier recipe, to be run again: {rows[0].name}." in (tmp_path / "earlier/page.md").read_text()
    )
