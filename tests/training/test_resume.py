"""A run that was interrupted, in whatever way, ends with the weights of one that was not: bit for bit on one thread."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tiny_task import RECIPES, TinyData, tiny_net, tiny_recipe

from openwork import files
from openwork.errors import RunError, TrainingError
from openwork.training.checkpoint import Checkpoint, load_tensors
from openwork.training.compress import compress
from openwork.training.folder import RunFolder
from openwork.training.progress import Silent
from openwork.training.result import Result

SCRIPT = Path(__file__).parent / "tiny_task.py"


class StopAt(Silent):
    """Ctrl-C after so many batches."""

    def __init__(self, batch: int) -> None:
        self.left = batch

    def batch_done(self, loss: float) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


class Messages(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.epochs: list[int] = []

    def message(self, text: str) -> None:
        self.lines.append(text)

    def epoch_started(self, phase: str, epoch: int, epochs: int, batches: int) -> None:
        self.epochs.append(epoch)


def run(folder: Path | None, recipe: str = "admm", progress: Silent | None = None, seed: int = 0) -> Result:
    return compress(tiny_net(seed), tiny_recipe(recipe), TinyData(), folder, threads=1, progress=progress)


def same_weights(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    # As bytes, so that -0.0 and NaN count too.
    return a.keys() == b.keys() and all(a[k].numpy(force=True).tobytes() == b[k].numpy(force=True).tobytes() for k in a)


def figures(history: object) -> list[dict[str, object]]:
    return [{k: v for k, v in line.items() if k != "seconds"} for line in history]  # type: ignore[attr-defined]


def test_two_runs_are_equal_and_another_seed_is_not(tmp_path: Path) -> None:
    first, second = run(None), run(tmp_path / "run")
    assert same_weights(first.model.state_dict(), second.model.state_dict())
    assert figures(first.history) == figures(second.history)
    other = tiny_recipe().model_copy(update={"schedule": tiny_recipe().schedule.model_copy(update={"seed": 1})})
    assert not same_weights(
        first.model.state_dict(), compress(tiny_net(), other, TinyData(), threads=1).model.state_dict()
    )


@pytest.mark.parametrize("recipe", RECIPES)
def test_ctrl_c_at_every_epoch_leaves_a_run_that_resumes_exactly(recipe: str, tmp_path: Path) -> None:
    whole = run(None, recipe)
    batches = 6 * len(whole.history)
    stops = 0
    while stops < batches:
        model = tiny_net()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        try:
            # 7 batches: one whole epoch and one batch of the next, so that each call gets one epoch further.
            result = compress(model, tiny_recipe(recipe), TinyData(), tmp_path, threads=1, progress=StopAt(7))
            break
        except KeyboardInterrupt:
            stops += 1
            assert same_weights(model.state_dict(), before), "an interrupted call must leave the user's model alone"
    assert stops == len(whole.history) - 1
    assert same_weights(result.model.state_dict(), whole.model.state_dict())
    assert figures(result.history) == figures(whole.history)
    assert result.accuracy == whole.accuracy and result.dense_accuracy == whole.dense_accuracy
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(result.history)


def test_kill_9_at_random_moments(tmp_path: Path) -> None:
    """Processes that are really killed, between any two instructions, until one gets to the end."""
    whole = run(None, "admm")
    chance = random.Random(os.getpid())
    kills = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(tmp_path / "run"), "admm"], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        patience = chance.randint(1, 24) if kills < 4 else 10_000
        for line in process.stdout:
            patience -= 1
            if patience == 0 or line == "finished\n":
                break
        if patience == 0:
            time.sleep(chance.random() * 0.01)  # So that some kills fall into the writing of a file.
            process.send_signal(signal.SIGKILL)
        process.stdout.close()
        if process.wait() == -signal.SIGKILL:
            kills += 1
        elif process.returncode == 0:
            break
    assert process.returncode == 0 and kills >= 1
    weights, _ = load_tensors(tmp_path / "run" / "model.safetensors")
    assert same_weights(weights, dict(whole.model.state_dict()))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == FILES


FILES = [
    "checkpoint.safetensors",
    "environment.json",
    "metrics.jsonl",
    "model.safetensors",
    "recipe.yaml",
    "result.json",
]


def test_a_finished_run_returns_its_result_at_once(tmp_path: Path) -> None:
    first, heard = run(tmp_path), Messages()
    model = tiny_net(3)
    again = compress(model, tiny_recipe(), TinyData(), tmp_path, progress=heard)
    assert heard.epochs == [] and "is finished" in heard.lines[-1]
    assert again.to_dict() == first.to_dict() | {"command": None}
    assert again.history == first.history and again.model is model
    assert same_weights(model.state_dict(), first.model.state_dict())
    # Also with the model object that holds the result already.
    assert run_again_on(first, tmp_path).accuracy == first.accuracy


def run_again_on(result: Result, folder: Path) -> Result:
    return compress(result.model, tiny_recipe(), TinyData(), folder)


def test_a_run_killed_between_its_last_two_files_is_completed(tmp_path: Path) -> None:
    first = run(tmp_path)
    (tmp_path / "result.json").unlink()
    heard = Messages()
    again = run(tmp_path, progress=heard)
    assert heard.epochs == [] and same_weights(again.model.state_dict(), first.model.state_dict())
    assert json.loads((tmp_path / "result.json").read_text())["final"] == first.to_dict()["final"]


def test_another_recipe_model_or_data_is_refused_with_what_differs(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, "one-shot", StopAt(8))
    recipe = tiny_recipe("one-shot")
    longer = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"batch_size": 8})})
    with pytest.raises(RunError, match=r"recipe\.schedule\.batch_size is 16 there, 8 here"):
        compress(tiny_net(), longer, TinyData(), tmp_path)
    with pytest.raises(RunError, match="starting weights differ"):
        run(tmp_path, "one-shot", seed=1)
    wider = tiny_net()
    wider.fc1 = torch.nn.Linear(12, 20)
    wider.head = torch.nn.Linear(20, 4)
    with pytest.raises(RunError, match=r"model\.fc1\.weight\[0\] is 18 there, 20 here"):
        compress(wider, recipe, TinyData(), tmp_path)
    data = TinyData()
    data.train_size = 80
    with pytest.raises(RunError, match=r"data\.train_size is 96 there, 80 here"):
        compress(tiny_net(), recipe, data, tmp_path)
    assert run(tmp_path, "one-shot").history[-1]["epoch"] == 3


def test_a_folder_with_the_result_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(RunError, match="holds the result of something else than a run; choose another folder"):
        run(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["result.json"]


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    from openwork.training.folder import RunFolder

    with RunFolder(tmp_path).locked(), pytest.raises(RunError, match="in use by another process"):
        run(tmp_path)


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"cannot use .*file as a run folder"):
        run(tmp_path / "file")


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"\xff" * 64 + b, lambda b: b""], ids=["cut", "flip", "empty"]
)
def test_a_damaged_checkpoint_is_named(damage: object, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=StopAt(13))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(RunError, match=r"checkpoint\.safetensors .*delete it to start the run anew"):
        run(tmp_path)


@contextlib.contextmanager
def no_space(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A disk that turns out full when data are flushed to it."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        yield


@contextlib.contextmanager
def no_large_files(_: pytest.MonkeyPatch) -> Iterator[None]:
    """The operating system itself refuses to write more than 8 kB into a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("limit", "words"), [(no_space, "No space left on device"), (no_large_files, "File too large")]
)
def test_a_full_disk_leaves_the_last_checkpoint(
    limit: Callable[[pytest.MonkeyPatch], contextlib.AbstractContextManager[None]],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=StopAt(14))

    before = Checkpoint.load(tmp_path / "checkpoint.safetensors")
    with (
        limit(monkeypatch),
        pytest.raises(RunError, match=rf"cannot write .*{words}; what was there before is unchanged"),
    ):
        run(tmp_path)
    after = Checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert after.epochs_done == before.epochs_done == 2 and same_weights(after.model, before.model)
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]
    assert same_weights(run(tmp_path).model.state_dict(), whole.model.state_dict())


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "metrics.jsonl", "model-level2.safetensors"])
def test_what_a_killed_run_left_half_written_is_cleared(name: str, tmp_path: Path) -> None:
    half, mine = tmp_path / f".{name}.x1y2", tmp_path / ".notes"
    half.write_bytes(b"half")
    mine.write_bytes(b"mine")
    with RunFolder(tmp_path).locked():
        assert not half.exists() and mine.exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    class Bad(TinyData):
        def train_batches(self, batch_size: int, seed: int, epoch: int):  # type: ignore[no-untyped-def]
            for step, (x, y) in enumerate(super().train_batches(batch_size, seed, epoch)):
                yield (x * float("nan") if (epoch, step) == (3, 2) else x), y

    with pytest.raises(
        TrainingError, match=r"loss is nan in step 2 of epoch 3 \(shape\); lower schedule.shape_rate.peak or solver.rho"
    ):
        compress(tiny_net(), tiny_recipe(), Bad(), tmp_path, threads=1)
    saved = Checkpoint.load(tmp_path / "checkpoint.safetensors")
    assert saved.epochs_done == 3
    assert all(t.isfinite().all() for t in saved.model.values())
    assert same_weights(run(tmp_path).model.state_dict(), run(None).model.state_dict())
