"""`openwork demo`: the whole way on data that comes with scikit-learn, checked, timed and shown in one table."""

import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from ..errors import CompileError
from . import _tables as tables
from ._evaluate import BATCH, predictions
from ._options import Json, Threads
from ._output import progress_console, show
from ._way import Order, Outcome, command_line, go

TOLERANCE = 1e-4
"""Largest difference between native and PyTorch outputs, relative to the largest output."""

GOES_ON = True
"""After Ctrl-C what was finished lies in the run folder, and the same command goes on from there."""


def command(
    run_dir: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("runs/demo"),
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Train, prune, compile, check and time LeNet-5 on scikit-learn's handwritten digits (a minute or two)."""
    console = progress_console()
    order = Order(
        model="lenet5",
        recipe="demo",
        data="digits",
        run_dir=run_dir,
        threads=threads,
        seed=None,
        epochs_scale=1.0,
        against=("pytorch", "onnxruntime"),
        repeats=100,
        command=command_line(),
    )
    outcome = go(order, console)
    check = compare(outcome)
    console.print(
        f"native outputs against PyTorch on {check['examples']} test images: "
        f"largest relative difference {check['difference']:.1e}, same class for {check['agreeing']}"
    )
    show({**outcome.to_dict(), "check": check}, closing(outcome, check), json)


def compare(outcome: Outcome) -> dict[str, Any]:
    """Native outputs beside PyTorch's on the whole test set; CompileError if they are not the same."""
    import torch

    model = outcome.result.model.eval()
    difference, agreeing, right, examples = 0.0, 0, 0, 0
    batches = outcome.data.test_batches(BATCH)
    for (ours, labels), (x, _) in zip(predictions(outcome.engine, outcome.data), batches, strict=True):
        with torch.inference_mode():
            theirs = model(x).numpy()
        difference = max(difference, float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(theirs).max()))))
        agreeing += int((ours.argmax(1) == theirs.argmax(1)).sum())
        right += int((ours.argmax(1) == labels).sum())
        examples += len(labels)
    if not difference <= TOLERANCE:
        raise CompileError(
            f"native outputs differ from PyTorch's by {difference:.1e} (limit {TOLERANCE:g}); remove the artifact and "
            "try again, and report it if it stays so"
        )
    return {"examples": examples, "difference": difference, "agreeing": agreeing, "accuracy": right / examples}


def closing(outcome: Outcome, check: dict[str, Any]) -> Table:
    """The one table at the end."""
    result, bench = outcome.result, outcome.bench
    ours, *others = bench.sides
    rows = [
        ("test accuracy", tables.percent(result.dense_accuracy), tables.percent(check["accuracy"]), ""),
        (
            "weights",
            f"{result.weights:,}",
            f"{result.nonzero:,}",
            f"{result.weights / max(1, result.nonzero):.1f}x fewer",
        ),
        _bytes(outcome),
        *(
            (
                f"latency beside {side.name}",
                tables.time(side.median_us),
                tables.time(ours.median_us),
                f"{side.ratio:.1f}x faster",
            )
            if side.ratio >= 1
            else (
                f"latency beside {side.name}",
                tables.time(side.median_us),
                tables.time(ours.median_us),
                f"{1 / side.ratio:.1f}x slower",
            )
            for side in others
        ),
    ]
    made = tables.table(("LeNet-5 on digits", "before", "after", ""), rows, right=(1, 2))
    threads = f"{bench.threads} thread{'s' * (bench.threads != 1)}"
    made.caption = (
        f"{tables.percent(result.sparsity, 1)} of the weights are zero, in 4x1 blocks; latencies are medians at batch "
        f"{bench.batch} on {threads}, engines in turn\nreport: {outcome.report}\nartifact: {outcome.artifact}"
    )
    for note in (*outcome.notes, *bench.notes):
        made.caption += f"\nnote: {note}"
    made.caption_justify = "left"
    return made


def _bytes(outcome: Outcome) -> tuple[str, str, str, str]:
    after = outcome.artifact.stat().st_size
    factor = outcome.dense_bytes / after if after else math.inf
    return "file", tables.size(outcome.dense_bytes), tables.size(after), f"{factor:.1f}x smaller"
