"""The run folder: who it belongs to, what is in it, and one process at a time."""

import contextlib
import fcntl
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from .. import __version__
from ..allocation.allocation import FILE as ALLOCATION
from ..allocation.figures import FILE as FIGURES
from ..allocation.figures import digest
from ..data.base import Data
from ..errors import RunError
from ..files import write_text
from ..quantization import rounding
from ..recipes.recipe import Recipe
from .checkpoint import Checkpoint, load_tensors, model_tensors, save_tensors
from .result import Result

CHECKPOINT = "checkpoint.safetensors"
"""The run after its last epoch."""

_FILES = (
    ALLOCATION,
    FIGURES,
    rounding.FILE,
    CHECKPOINT,
    "environment.json",
    "metrics.jsonl",
    "model.safetensors",
    "model-level*.safetensors",
    "recipe.yaml",
    "result.json",
)
_LIBRARIES = ("torch", "numpy", "safetensors", "pydantic")


class RunFolder:
    """Files of one run, each replaced whole or not at all; laid out as docs/architecture.md says."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process (the lock ends with the process) and clear what a killed one left
        half-written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise RunError(f"cannot use {self.path} as a run folder: {error.strerror}; choose another one") from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{self.path} is in use by another process; wait, or choose another folder") from None
            for name in _FILES:
                for stale in self.path.glob(f".{name}.*"):
                    stale.unlink(missing_ok=True)
            yield
        finally:
            os.close(handle)

    def claim(
        self, recipe: Recipe, model: nn.Module, data: Data, threads: int, device: str, command: str | None
    ) -> None:
        """Make the folder this run's own, or check that it is; RunError says what differs."""
        session = {
            "command": command,
            "threads": threads,
            "device": device,
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        if (self.path / "environment.json").exists():
            environment = self._read_json("environment.json")
            self._compare(recipe, model, data, environment)
            if (self.path / "result.json").exists():
                return  # finished: nothing is to go on
            environment["sessions"] = [*environment.get("sessions", []), session]
        elif (self.path / "result.json").exists():
            raise RunError(f"{self.path} holds the result of something else than a run; choose another folder")
        else:
            environment = {
                **_machine(),
                "threads": threads,
                "seed": recipe.schedule.seed,
                "command": command,
                "git_revision": _git_revision(),
                "start": _identity(recipe, model, data),
                "sessions": [session],
            }
            self.keep(recipe)
        write_text(self.path / "environment.json", json.dumps(environment, indent=1))

    def keep(self, recipe: Recipe) -> None:
        """Let recipe.yaml be `recipe`: the run's own with the sparsities that its budget picked."""
        write_text(self.path / "recipe.yaml", recipe.dump())

    def checkpoint(self) -> Checkpoint | None:
        """The last checkpoint, None before the first."""
        return Checkpoint.load(self.path / CHECKPOINT) if self.begun else None

    @property
    def begun(self) -> bool:
        """Whether there is a checkpoint."""
        return (self.path / CHECKPOINT).exists()

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint; the metrics follow it, so that they never tell more than can be resumed."""
        checkpoint.save(self.path / CHECKPOINT)
        self.write_metrics(checkpoint.history)

    def write_metrics(self, history: list[dict[str, Any]]) -> None:
        """Replace metrics.jsonl."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in history))

    def finish(self, result: Result) -> None:
        """Write the final weights, then the result: with it the run counts as finished."""
        for number, level in enumerate(result.levels, 2):
            save_tensors(self.level(number), model_tensors(level.model))
        if found := rounding.grids(result.model):
            rounding.save(self.path / rounding.FILE, found)
        save_tensors(self.path / "model.safetensors", model_tensors(result.model))
        write_text(self.path / "result.json", json.dumps(result.to_dict(), indent=1))

    def grids(self) -> dict[str, rounding.Grid]:
        """What layers of the final model round their inputs to; empty if the recipe quantizes nothing."""
        path = self.path / rounding.FILE
        return rounding.load(path) if path.exists() else {}

    def level(self, number: int) -> Path:
        """Where the weights of a level of nested sparsity lie, from level 2 on."""
        return self.path / f"model-level{number}.safetensors"

    def finished(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Content of result.json and the final weights, None if the run is not at its end."""
        if not (self.path / "result.json").exists():
            return None
        return self._read_json("result.json"), load_tensors(self.path / "model.safetensors")[0]

    def _compare(self, recipe: Recipe, model: nn.Module, data: Data, environment: Mapping[str, Any]) -> None:
        there, here = dict(environment.get("start", {})), _identity(recipe, model, data)
        there["recipe"] = _of_today(there.get("recipe"))
        final = self.path / "model.safetensors"
        # The model object of a finished run is as good a start as the one it began with: its weights are the result.
        if final.exists() and here["weights"] is not None and here["weights"] == digest(load_tensors(final)[0]):
            here["weights"] = there.get("weights")
        if differences := list(_differences(there, here)):
            more = f" (and {len(differences) - 3} more)" if len(differences) > 3 else ""
            what = "; ".join(differences[:3]) + more
            raise RunError(f"{self.path} belongs to another run: {what}; choose another folder or delete it")

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            content = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self.path / name} cannot be read ({error}); choose another folder or delete this one"
            ) from None
        if not isinstance(content, dict):
            raise RunError(f"{self.path / name} is not of a run; choose another folder or delete this one")
        return content


def _identity(recipe: Recipe, model: nn.Module, data: Data) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    tensors = model_tensors(model)
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"name"}),
        "model": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "data": {"name": data.name, "train_size": data.train_size},
        # A network trained from scratch may start from other random weights: the checkpoint holds what counts.
        "weights": None if recipe.schedule.dense_epochs else digest(tensors),
    }


def _of_today(recipe: Any) -> Any:
    """A recipe that an earlier version wrote, with the fields that recipes have had since, at their defaults."""
    with contextlib.suppress(ValidationError):
        return Recipe.model_validate(recipe).model_dump(mode="json", exclude={"name"})
    return recipe


def _differences(there: Any, here: Any, path: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        for key in dict.fromkeys([*there, *here]):
            yield from _differences(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, (a, b) in enumerate(zip(there, here, strict=True)):
            yield from _differences(a, b, f"{path}[{index}]")
    elif there != here:
        yield (
            "starting weights differ" if path == "weights" else f"{path} is {_short(there)} there, {_short(here)} here"
        )


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text if len(text) < 60 else text[:57] + "..."


def _machine() -> dict[str, Any]:
    return {
        "versions": {
            "python": platform.python_version(),
            "openwork": __version__,
            **{name: metadata.version(name) for name in _LIBRARIES},
        },
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
    }


def _cpu() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_revision() -> str | None:
    """Of the checkout that Openwork runs from, None if it was installed from a package."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    return None
