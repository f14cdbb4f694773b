"""Ctrl-C gets one line that is true, and exit code 130; a run goes on, and has the same weights in the end."""

import signal
import subprocess
import time
from pathlib import Path

from safetensors.numpy import load_file
from seat import DATA, HERE, MODEL, RECIPE, command, environment, run


def order(folder: str, *more: object) -> tuple[object, ...]:
    return (
        *("compress", MODEL, "--recipe", RECIPE, "--data", DATA, "--run-dir", folder, "--threads", 1),
        *("--epochs-scale", 8, "--against", "none", "--repeats", 3, *more),
    )


def test_ctrl_c_then_the_same_command(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w") as out, (tmp_path / "err").open("w") as err:
        process = subprocess.Popen(command(*order("runs/a")), cwd=tmp_path, env=environment(), stdout=out, stderr=err)
    deadline = time.monotonic() + 120
    while "epoch 3/" not in (tmp_path / "err").read_text():
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "err").read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=120)
    out_text, rest = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert process.returncode == 130 and out_text == ""
    last = rest.strip().splitlines()[-1]
    assert (
        last.startswith("error: interrupted, what was finished is kept")
        and "openwork compress" in last
        and "--run-dir runs/a" in last
    )
    assert "Traceback" not in rest
    assert not (tmp_path / "runs/a/result.json").exists()
    partial = run("report", "runs/a", cwd=tmp_path)
    assert partial.code == 0 and "has not finished" in (tmp_path / "runs/a/report.html").read_text()

    resumed = run(*order("runs/a"), cwd=tmp_path)
    assert resumed.code == 0, resumed.err
    assert "resuming runs/a after" in resumed.err and "epoch 1/" not in resumed.err
    assert len((tmp_path / "runs/a/metrics.jsonl").read_text().splitlines()) == 32

    straight = run(*order("runs/b"), cwd=tmp_path)
    assert straight.code == 0, straight.err
    ours, theirs = (load_file(tmp_path / f"runs/{name}/model.safetensors") for name in "ab")
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_ctrl_c_while_compiling(tmp_path: Path) -> None:
    (tmp_path / "old.openwork").write_bytes(b"what was there before")
    order = ("compile", f"{HERE / 'mine.py'}:interrupted", "-o", "old.openwork")
    done = run(*order, cwd=tmp_path)
    assert (done.code, done.out) == (130, "")
    again = " ".join(("openwork", *order))
    assert done.err.strip().splitlines()[-1] == f"error: interrupted, nothing was written; start again with: {again}"
    assert [path.name for path in tmp_path.iterdir()] == ["old.openwork"]
    assert (tmp_path / "old.openwork").read_bytes() == b"what was there before"
