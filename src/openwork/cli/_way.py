"""The whole way of a model: compress, compile, time, report. `compress` and `demo` share it.

Each stage leaves its result in the run folder and is skipped when that result is there and belongs to the same
weights, so a command that was interrupted goes on where it stopped. Only the timing is always done anew.
"""

import copy
import hashlib
import io
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

import openwork

from .. import plugins
from ..errors import ArtifactError, RecipeError, UsageError
from ..files import write_text

if TYPE_CHECKING:
    import torch

    from ..data.base import Data
    from ..engine.bench_result import BenchResult
    from ..recipes.recipe import Recipe, Schedule, Step
    from ..training.result import Result


@dataclass(frozen=True)
class Order:
    """What the user asked for."""

    model: str
    recipe: str
    data: str
    run_dir: Path | None
    threads: int | None
    seed: int | None
    epochs_scale: float
    against: tuple[str, ...]
    repeats: int
    command: str
    holdout: int | None = None
    device: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What the whole way left behind."""

    result: "Result"
    engine: Any
    data: "Data"
    artifact: Path
    dense_bytes: int
    bench: "BenchResult"
    report: Path
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`: the content of result.json, and what came after it."""
        return {
            **self.result.to_dict(),
            "run_dir": str(self.artifact.parent),
            "artifact": str(self.artifact),
            "bytes": {"dense": self.dense_bytes, "artifact": self.artifact.stat().st_size},
            "bench": self.bench.to_dict(),
            "report": str(self.report),
            "notes": list(self.notes),
        }


def go(order: Order, console: Console) -> Outcome:
    """Everything, from the model to the report; what is finished already is taken from the run folder."""
    against, notes = usable_peers(order.against)
    result, data = compressed(order, console)
    run_dir = result.run_dir
    assert run_dir is not None
    engine, artifact = compiled(order, result, data, run_dir, console)
    # Other engines would only simulate what is quantized: they run it in float32.
    networks = {"model": openwork.strip(copy.deepcopy(result.model))} if result.quantized else {}
    with waiting(console, "timing"):
        bench = openwork.bench(
            engine,
            against=against,
            threads=engine.threads,
            repeats=order.repeats,
            **(networks or {"compiled_from": result.model}),
        )
    write_text(run_dir / "bench.json", json.dumps(bench.to_dict(), indent=1))
    from ..report import write_report

    return Outcome(
        result=result,
        engine=engine,
        data=data,
        artifact=artifact,
        dense_bytes=(run_dir / "model.safetensors").stat().st_size,
        bench=bench,
        report=write_report(run_dir, engine=engine),
        notes=(*notes, *_remarks(result, bench)),
    )


def _remarks(result: "Result", bench: "BenchResult") -> Iterator[str]:
    """What a reader of the figures must know."""
    for layer in result.layers:
        if layer.note:
            yield f"{layer.name}: {layer.note}"
    if bench.load > bench.machine["cores"]:
        cores = bench.machine["cores"]
        yield f"the machine was busy (load {bench.load:.1f} on {cores} cores), so latencies are noisy; time them again"


def compressed(order: Order, console: Console) -> "tuple[Result, Data]":
    """The pruned model, trained here or taken from the run folder."""
    with waiting(console, "loading PyTorch"):
        import torch

        from .. import data as data_room
        from .. import models
        from ..recipes.recipe import Recipe
        from ..training.device import resolve
    from ._progress import Bars

    device = None if order.device is None else resolve(order.device)
    recipe = adapted(Recipe.load(order.recipe), order.seed, order.epochs_scale)
    # A random initialisation, the user's factory's too, must be the same when the run is resumed.
    torch.manual_seed(recipe.schedule.seed)
    model = models.resolve(order.model)
    data = data_room.resolve(order.data, **({} if order.holdout is None else {"holdout": order.holdout}))
    run_dir = order.run_dir or Path("runs") / f"{short_name(order.model)}-{recipe.name}"
    with Bars(console) as bars:
        result = openwork.compress(
            model,
            recipe,
            data,
            run_dir,
            threads=order.threads,
            device=device,
            progress=bars,
            model_name=order.model,
            command=order.command,
        )
    return result, data


def compiled(order: Order, result: "Result", data: "Data", run_dir: Path, console: Console) -> tuple[Any, Path]:
    """The engine for the run's weights, and its file: the one in the run folder if it is of these weights."""
    path = run_dir / f"{short_name(order.model)}.openwork"
    digest = hashlib.sha256((run_dir / "model.safetensors").read_bytes()).hexdigest()
    if path.is_file():
        try:
            engine = openwork.load(path, threads=order.threads)
        except ArtifactError as error:
            console.print(f"{error}; compiling again")
        else:
            if engine.provenance.get("weights_sha256") == digest and engine.levels == 1 + len(result.levels):
                console.print(f"{path} is compiled from these weights already")
                return engine, path
    provenance = {
        "model": order.model,
        "recipe": result.recipe_name,
        "data": result.data_name,
        "run": str(run_dir),
        "accuracy": result.accuracy,
        "dense_accuracy": result.dense_accuracy,
        "sparsity": result.sparsity,
        "weights_sha256": digest,
        **({"quantized": result.quantized} if result.quantized else {}),
    }
    levels = [level.model for level in result.levels]
    engine = compile_model(result.model, data.example_input, order, provenance, console, levels)
    engine.save(path)
    return engine, path


def compile_model(
    model: "torch.nn.Module",
    example: "torch.Tensor",
    order: Order,
    provenance: dict[str, Any],
    console: Console,
    levels: Sequence["torch.nn.Module"] = (),
) -> Any:
    """Compile with a word about the wait."""
    with compiling(console):
        return openwork.compile(
            model.eval(),
            example,
            threads=order.threads,
            levels=levels,
            name=short_name(order.model),
            provenance=provenance,
        )


def adapted(recipe: "Recipe", seed: int | None, epochs_scale: float) -> "Recipe":
    """`recipe` with another seed, and each phase that it has longer or shorter by a factor, at least one epoch."""
    from ..recipes.schedule import PHASES, SEEDS

    if seed is not None and not 0 <= seed < SEEDS:
        raise RecipeError(f"--seed {seed}: must be 0 or more, and less than {SEEDS:,}")

    def scaled(settings: "Schedule | Step") -> dict[str, int]:
        fields = [f"{phase}_epochs" for phase in PHASES] if epochs_scale != 1 else []
        epochs = {field: found for field in fields if (found := getattr(settings, field, None))}
        return {field: max(1, round(count * epochs_scale)) for field, count in epochs.items()}

    changes = scaled(recipe.schedule) | ({} if seed is None else {"seed": seed})
    steps = tuple(step.model_copy(update=scaled(step)) for step in recipe.steps)
    return recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update=changes), "steps": steps})


def usable_peers(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Those peers that are installed, and a note about each other one. An unknown name is a mistake."""
    from ..engine.peers.base import Peer

    usable, notes = [], []
    for name in names:
        available = plugins.find("engine.peers", name, Peer)().available()  # type: ignore[type-abstract]
        if available:
            usable.append(name)
        else:
            notes.append(f"not timed beside {available.reason}")
    return tuple(usable), tuple(notes)


def split_names(text: str) -> tuple[str, ...]:
    """'a, b' as ('a', 'b'); '' or 'none' as ()."""
    return () if text.strip() in ("", "none") else tuple(part.strip() for part in text.split(",") if part.strip())


def short_name(spec: str) -> str:
    """A name for folders and files: the zoo name, or the factory's in path/to/file.py:factory."""
    name = spec.rpartition(":")[2] if ":" in spec else Path(spec).stem
    if not name:
        raise UsageError(f"{spec!r} names no function; write path/to/file.py:factory")
    return name


@contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Say what is being waited for: with a spinner on a terminal, in a line with the seconds it took elsewhere."""
    began = time.perf_counter()
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        yield
    taken = time.perf_counter() - began
    if taken > 0.5:
        console.print(f"{what}: {taken:.1f} s")


@contextmanager
def compiling(console: Console, what: str = "compiling and tuning") -> Iterator[None]:
    """Wait for the compiler. torch.export logs and prints pages when it gives up; the error has the reason."""
    logging.disable(logging.ERROR)
    try:
        with waiting(console, what), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def command_line() -> str:
    """The command as it was typed, for the record."""
    import shlex

    return shlex.join(["openwork", *sys.argv[1:]])
