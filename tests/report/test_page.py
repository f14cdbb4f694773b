"""The page tells what the run folder holds, says what it lacks, and stands alone."""

import json
from pathlib import Path

import pytest
from dom import Page

from openwork import plugins
from openwork.errors import RunError
from openwork.report import write_report
from openwork.report.page import OF_SOLVERS
from openwork.solvers.base import Solver


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text())


def test_headline_figures_are_those_of_the_run_folder(whole_run: Path) -> None:
    figures = page_of(whole_run).figures
    assert figures["Test accuracy"] == "Test accuracy 91.73 % → 90.71 % -1.02 points"
    assert figures["Sparsity"] == "Sparsity 80.0 % 200 of 1,000 weights left"
    # The fastest other engine is the one to be compared with, not the slowest.
    assert figures["Latency"].startswith("Latency 60 µs → 20 µs")
    assert figures["Speed-up"] == "Speed-up 3.00x against onnxruntime, the fastest other engine"
    before, after = (whole_run / "model.safetensors").stat().st_size, (whole_run / "small.openwork").stat().st_size
    assert f"{before / 1024:.3g} KiB → {after / 1024:.3g} KiB" in figures["File"]


def test_every_layer_stands_with_constraint_and_kernel(whole_run: Path) -> None:
    page = page_of(whole_run)
    layers = page.sections["layers"]
    assert "Left dense by the recipe: fc" in layers
    assert "Every operator runs natively" in layers
    assert "Block(shape=(4, 1), sparsity=0.75)" in layers and "77.8 %" in layers
    assert "_f32_" in layers, "no kernel is named"


def test_the_rest_of_the_page(whole_run: Path) -> None:
    sections = page_of(whole_run).sections
    assert "10.00x (9.00 to 11.00)" in sections["latency"] and "openvino was left out" in sections["latency"]
    assert "primal 3" in sections["curves"] and "90.00 %" in sections["curves"]
    assert "conv" in sections["masks"] and "fc" not in sections["masks"], "pictures are of pruned layers only"
    assert "openwork compress small --recipe tiny --data patterns" in sections["provenance"]
    assert "Test CPU" in sections["provenance"] and "secret" not in sections["provenance"]
    assert "missing" not in sections and "unfinished" not in sections


def test_all_that_solvers_say_of_themselves_is_drawn() -> None:
    drawn = {name for series, _, _ in OF_SOLVERS for name in series}
    assert {name for solver in plugins.every("solvers", Solver).values() for name in solver.METRICS} == drawn


def test_what_a_loss_is_made_of_has_a_chart(run_folder: Path) -> None:
    metrics = run_folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = {"labels": 0.25, "soft": 0.5, "feature": 0.75, "other": 1.25}
    metrics.write_text("\n".join(json.dumps({**line, "losses": losses}) for line in lines))
    told = page_of(run_folder).sections["curves"]
    assert "What the loss is made of" in told and all(f"{name} {value:g}" in told for name, value in losses.items())


def test_steps_of_a_recipe_are_told(whole_run: Path, run_folder: Path) -> None:
    assert "steps" not in page_of(whole_run).sections
    result = json.loads((run_folder / "result.json").read_text())
    result["note"] = "step 2 of 3 ends with validation accuracy 80.00%, below the floor of 90.00%"
    result["steps"] = [
        {"step": 1, "parent": 0, "validation_accuracy": 0.95, "sparsity": 0.5, "tried": [0.95], "kept": True},
        {"step": 2, "parent": 1, "validation_accuracy": 0.8, "sparsity": 0.75, "tried": [0.7, 0.8], "kept": False},
        {"step": 3, "parent": 1, "validation_accuracy": None, "sparsity": 0.8, "tried": [None], "kept": True},
    ]
    (run_folder / "result.json").write_text(json.dumps(result))
    told = page_of(run_folder).sections["steps"]
    assert "1 dense 95.00 % 50.00 % 95.00 %" in told and "3 step 1 80.00 %" in told
    assert "2 below the floor step 1 80.00 % 75.00 % 70.00 %, 80.00 %" in told and result["note"] in told


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("recipe.yaml", "recipe.yaml is not there"),
        ("environment.json", "environment.json is not there"),
        ("metrics.jsonl", "metrics.jsonl is not there"),
        ("model.safetensors", "model.safetensors is not there"),
        ("bench.json", "openwork bench"),
        ("result.json", "run the same compress command again"),
        ("small.openwork", "openwork compile"),
    ],
)
def test_a_missing_part_is_named_and_the_rest_is_shown(run_folder: Path, lost: str, said: str) -> None:
    (run_folder / lost).unlink()
    page = page_of(run_folder)
    assert said in page.sections["missing"]
    assert ("unfinished" in page.sections) == (lost == "result.json")
    assert "layers" in page.sections


def test_a_damaged_artifact_costs_only_its_part(run_folder: Path) -> None:
    (run_folder / "small.openwork").write_bytes(b"not an artifact")
    page = page_of(run_folder)
    assert "small.openwork cannot be read" in page.sections["missing"]
    assert page.figures["Sparsity"].startswith("Sparsity 80.0 %")


@pytest.mark.parametrize("name", ["result.json", "bench.json", "environment.json", "model.safetensors"])
def test_a_damaged_file_is_named(run_folder: Path, name: str) -> None:
    (run_folder / name).write_text('{"cut off')
    with pytest.raises(RunError, match=name):
        write_report(run_folder)


def test_a_record_cut_off_at_the_end_is_left_out(run_folder: Path) -> None:
    with (run_folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "pha')
    assert "3 epochs" in write_report(run_folder).read_text()


def test_a_record_damaged_in_the_middle_is_named(run_folder: Path) -> None:
    lines = (run_folder / "metrics.jsonl").read_text().splitlines()
    (run_folder / "metrics.jsonl").write_text("\n".join([lines[0], "{broken", *lines[1:]]))
    with pytest.raises(RunError, match="line 2"):
        write_report(run_folder)


def test_what_is_no_run_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run folder"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)


def test_names_cannot_put_markup_on_the_page(run_folder: Path) -> None:
    found = json.loads((run_folder / "result.json").read_text())
    found["model"] = "<script>alert(1)</script>"
    found["layers"][0]["constraint"] = "<img src=http://example.org/x.png>"
    (run_folder / "result.json").write_text(json.dumps(found))
    bench = json.loads((run_folder / "bench.json").read_text())
    bench["sides"][1]["name"] = '<image href="http://example.org/y.png"/>'
    (run_folder / "bench.json").write_text(json.dumps(bench))
    page = page_of(run_folder)
    assert not {"script", "img", "image"} & page.tags
    assert page.loads == []


def test_the_page_stands_alone(whole_run: Path) -> None:
    page = page_of(whole_run)
    assert page.loads == []
    assert len(page.ids) == len(set(page.ids)), "clip paths of two charts would be mixed up"


def test_the_check_for_loads_can_fail() -> None:
    assert Page('<img src="http://h/x.png">').loads == ["http://h/x.png"]
    assert Page("<style>a{background:url(x.png)}</style>").loads == ["x.png"]


def test_an_unwritable_page_leaves_the_old_one(run_folder: Path) -> None:
    target = run_folder / "page"
    target.mkdir()
    with pytest.raises(RunError, match="cannot write"):
        write_report(run_folder, output=target)
    assert list(target.iterdir()) == []


def test_given_figures_replace_those_of_the_folder(whole_run: Path, tmp_path: Path) -> None:
    bench = {"sides": [{"name": "openwork", "median_us": 1500.0}]}
    page = Page(write_report(whole_run, bench=bench, output=tmp_path / "r.html").read_text())
    assert page.figures["Latency"] == "Latency 1.5 ms median of one inference"
    assert "Speed-up" not in page.figures
