"""Rows are measured once, in a process each; mistakes and failures are said; the page says what the results say."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import page
import patterns
import pytest
import scaling
import sweep
import targets
from _suite import chosen, goal, verdict

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent

TINY = """
import sys
sys.path.insert(0, {benchmarks!r})
from _suite import Suite, goal, show_goals

def measure(row, options):
    print("measuring", row, file=sys.stderr)
    if row == "broken":
        raise ValueError("no such thing")
    if row == "dead":
        import os
        os._exit(7)
    return {{"goals": [goal(">= 2x", 2.0, 3.0 if row == "good" else 1.0, "x", (0.9, 1.1))]}}

ROWS = {{"good": "a good row", "bad": "a bad row", "broken": "a broken row", "dead": "a row that dies"}}
raise SystemExit(Suite("tiny", ROWS, measure, show_goals).main("tiny"))
"""


@pytest.fixture
def tiny(tmp_path):
    script = tmp_path / "tiny.py"
    script.write_text(TINY.format(benchmarks=str(ROOT / "benchmarks")))

    def run(*arguments):
        command = [sys.executable, script, "--folder", tmp_path / "found", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})

    return run


def test_a_row_is_measured_once_unless_asked_again(tiny, tmp_path):
    first = tiny("--rows", "good,bad")
    assert first.returncode == 0 and first.stderr.count("measuring") == 2
    assert "| a good row | >= 2x  | 3.00x   | 0.90-1.10     | met               |" in first.stdout
    assert "missed, 50% of it" in first.stdout
    document = json.loads((tmp_path / "found" / "tiny-good.json").read_text())
    assert document["suite"] == "tiny" and document["machine"]["cores"] >= 1 and "error" not in document
    assert document["command"] == "python benchmarks/tiny.py --rows good"
    second = tiny("--rows", "good,bad")
    assert second.stderr.count("measuring") == 0 and second.stdout == first.stdout
    assert tiny("--rows", "g*", "--again", "--threads", "3").stderr.count("measuring") == 1
    document = json.loads((tmp_path / "found" / "tiny-good.json").read_text())
    assert document["command"] == "python benchmarks/tiny.py --rows good --threads 3"


def test_a_row_that_fails_or_dies_is_named_and_tried_again(tiny, tmp_path):
    done = tiny("--rows", "good,broken,dead")
    assert done.returncode == 1
    assert "- broken: ValueError: no such thing" in done.stdout and "- dead: ended with code 7" in done.stdout
    assert "| a good row |" in done.stdout, "the others are measured all the same"
    assert tiny("--rows", "broken").stderr.count("measuring") == 1


def test_mistakes_and_lists(tiny):
    done = tiny("--rows", "god")
    assert done.returncode == 2 and done.stderr == "error: unknown row 'god'; known: good, bad, broken, dead\n"
    assert tiny("--list", "--rows", "b*").stdout == "bad: a bad row\nbroken: a broken row\n"
    assert chosen("b*,good", ["good", "bad", "broken"]) == ["good", "bad", "broken"]
    assert chosen("*o*", ["good", "bad", "broken"]) == ["good", "broken"]


def test_every_suite_names_its_rows():
    for module in (targets, sweep, scaling):
        assert module.SUITE.name == module.__name__ and all(module.SUITE.rows.values())
    assert {"resnet50-4x1", "dense-minilm", "vgg16-patdnn", "bert-4x1", "gru-103x"} <= targets.SUITE.rows.keys()
    assert {"resnet50-dense", "resnet50-kernel-95", "gru_timit-4x1-50"} <= sweep.SUITE.rows.keys()


def test_verdicts():
    assert verdict(goal(">= 2x", 2.0, None), {}) == "not measured here"
    assert verdict(goal(">= 2x", 2.0, None), {"not_yet": "no kernels"}) == "not yet: no kernels"
    assert verdict(goal(">= 2x", 2.0, 2.0), {}) == "met"
    assert goal(">= 90 %", 0.9, 0.456, "%")["reached"] == "46 %"


def test_what_is_not_there_yet_is_named_without_measuring(monkeypatch):
    class Options:
        threads = 1

    found = targets.measure_network(targets.dense("nosuchmodel"), Options)
    assert found["not_yet"] == "the zoo has no nosuchmodel" and found["goals"][0]["met"] is None


def test_the_page_is_what_the_results_say(tmp_path):
    """Golden. To accept a change: python benchmarks/page.py tests/benchmarks/results/* --to tests/benchmarks/page.md"""
    results = sorted((HERE / "results").glob("*.json"))
    target = tmp_path / "page.md"
    assert page.main([*map(str, results), "--to", str(target)]) == 0
    assert target.read_text() == (HERE / "page.md").read_text()


def test_the_page_cannot_be_made_of_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert page.main([]) == 2 and "run `make bench` first" in capsys.readouterr().err
    broken = tmp_path / "targets-x.json"
    broken.write_text("{")
    assert page.main([str(broken)]) == 2 and "targets-x.json cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "docs").exists()


def test_the_runner_names_its_benchmarks():
    command = [sys.executable, ROOT / "benchmarks" / "run.py", "targets", "nosuch"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(
        "error: unknown benchmark nosuch; known: balanced, circulant, layers, page, patterns, quads, scaling"
    )


@pytest.mark.slow
def test_a_target_is_measured_from_the_users_seat(tmp_path):
    command = [sys.executable, ROOT / "benchmarks" / "targets.py", "--rows", "dense-mobilenetv2", "--folder", tmp_path]
    options = ["--rounds", "3", "--tune", "off", "--against", "pytorch,onnxruntime", "--threads", "1"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "targets-dense-mobilenetv2.json").read_text())
    assert [side["engine"] for side in found["result"]["sides"]] == ["openwork", "pytorch", "onnxruntime"]
    assert found["goals"][0]["found"] == found["result"]["sides"][2]["ratio"]
    assert found["roofline"]["total_us"] > 0 and found["peaks"]["gflops"] > 1
    assert page.main([str(tmp_path / "targets-dense-mobilenetv2.json"), "--to", str(tmp_path / "page.md")]) == 0
    assert "mobilenetv2, dense" in (tmp_path / "page.md").read_text()


def test_a_pattern_is_measured_beside_its_dense_layer():
    row = patterns.measure("linear-4x1-90", argparse.Namespace(threads=1, rounds=2))
    assert row["kept"] == round(1024 * 1024 * 0.1 / 4) * 4
    assert row["bytes"] > 4 * row["kept"] and row["us"] > 0 and row["times_dense"][0] > 0
    document = {**row, "suite": "patterns", "row": "linear-4x1-90", "title": patterns.ROWS["linear-4x1-90"]}
    line = next(line for line in patterns.show([document]).splitlines() if "4x1 blocks at 90 %, linear" in line)
    assert row["kernel"] in line and f"{row['bytes']:,}" in line
    circulant = {**document, "format": "circulant", "kept": 1 << 20}
    assert "| circulant," in patterns.show([circulant])
    assert "conv-patdnn-75" in patterns.ROWS and "linear-patdnn-75" not in patterns.ROWS
