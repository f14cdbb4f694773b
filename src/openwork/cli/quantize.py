"""`openwork quantize`: a network of few bits from a trained one, without training."""

import json as json_format
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group

import openwork

from ..errors import RunError, UsageError
from ..files import write_text
from . import _tables as tables
from ._evaluate import of_network, tokenizer
from ._options import Json
from ._output import progress_console, show
from ._progress import Bar
from ._source import network, source
from ._way import command_line, compiling, split_names, waiting

if TYPE_CHECKING:
    import torch
    from torch import fx, nn

    from ..data import Data, SentencePairs
    from ..quantization.report import Report

_LENGTH = 128


class Weights(StrEnum):
    """How the interval of an output channel is chosen."""

    mse = "mse"
    max = "max"


def command(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|RUN_DIR", help="Zoo name, path/to/file.py:factory, or a finished run's folder."),
    ],
    data: Annotated[str, typer.Option(help="Data set to calibrate on: a name, or your own path/to/file.py:factory.")],
    output: Annotated[Path, typer.Option("-o", "--output", "--out", help="The folder to write.")],
    weights: Annotated[Path | None, typer.Option(help="Weights to use, a .safetensors file.")] = None,
    bits: Annotated[int, typer.Option(help="Bits of weights and activations, 2 to 8.")] = 8,
    weight_bits: Annotated[int | None, typer.Option(help="Bits of weights, where they differ.")] = None,
    observer: Annotated[
        str, typer.Option(help="Where levels of activations end: minmax, percentile, mse or entropy.")
    ] = "mse",
    percent: Annotated[
        float | None, typer.Option(help="Of observer percentile: share of values within, such as 99.99.")
    ] = None,
    weight_range: Annotated[Weights, typer.Option(help="Interval of an output channel: least error, or largest.")] = (
        Weights.mse
    ),
    correct_bias: Annotated[
        bool, typer.Option("--correct-bias/--keep-bias", help="Take mean errors into biases, or leave them.")
    ] = True,
    per_row: Annotated[
        bool,
        typer.Option("--per-row", help="Round each token that a linear layer reads by its own largest value."),
    ] = False,
    equalize: Annotated[
        bool, typer.Option("--equalize", help="First bring the ranges of neighbouring layers together.")
    ] = False,
    leave: Annotated[str, typer.Option(help="Layers that stay in float32, with commas between them.")] = "",
    samples: Annotated[int, typer.Option(min=1, help="Calibration samples; 100 to 500 are customary.")] = 256,
    measured: Annotated[int, typer.Option(min=0, help="Samples to find each layer's share of the error on.")] = 8,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Measure the test split before and after, simulated in PyTorch.")
    ] = False,
    length: Annotated[
        int | None, typer.Option(min=1, help="Tokens or steps of a sequence, of models that take sequences.")
    ] = None,
    json: Json = False,
) -> None:
    """Quantize MODEL, or the pruned model of RUN_DIR, after training, on some of its data.

    `openwork compile` and `report` take the folder as they take a run's. Calibration data is the validation split of
    DATA, else the training split; where it has neither, the beginning of the test split.
    """
    if (output / "result.json").exists() or (output / "checkpoint.safetensors").exists():
        raise RunError(f"{output} holds a run already; choose another folder")
    if percent is not None and observer != "percentile":
        raise UsageError(f"--percent {percent:g} belongs to observer percentile, not {observer}; leave it out")
    began, console = time.monotonic(), progress_console()
    spec, path, provenance = source(model, weights)
    with waiting(console, "loading PyTorch"):
        from .. import data as data_room
        from ..quantization import folder
        from ..quantization.quantize import report_of
    examples = data_room.load(data)
    with compiling(console, "loading the model"):
        exact = network(spec, path)
    calibration, example = _calibration(spec, examples, samples, length)
    with Bar(console) as bar:
        small = openwork.quantize(
            exact,
            calibration,
            example,
            weight_bits=bits if weight_bits is None else weight_bits,
            activation_bits=bits,
            observer=observer if percent is None else {"kind": observer, "percent": percent},
            weights=weight_range.value,
            correct_bias=correct_bias,
            per_row=per_row,
            equalize=equalize,
            leave=split_names(leave),
            samples=samples,
            measured=measured,
            progress=bar,
        )
    found = report_of(small)
    facts = {"model": spec, "data": data, "command": command_line()}
    folder.save(small, output, facts)
    accuracies = None
    if evaluate:
        with waiting(console, "measuring accuracy"):
            accuracies = _accuracies(exact, output, examples, spec, length or _LENGTH)
    result = _result(small, found, provenance, accuracies, {**facts, "seconds": time.monotonic() - began})
    write_text(output / "result.json", json_format.dumps(result, indent=1))
    document = {"folder": str(output), **result, "quantization": found.to_dict()}
    show(document, _closing(found, accuracies, output), json)


def _calibration(
    spec: str, examples: "Data | SentencePairs", samples: int, length: int | None
) -> "tuple[Any, tuple[torch.Tensor, ...] | None]":
    """Batches to calibrate on, and what one call of the model takes (None: what the first batch is)."""
    from ..data import SentencePairs
    from ..quantization.samples import BATCH

    if not isinstance(examples, SentencePairs):
        return examples, None
    pairs = examples.train
    sentences = [sentence for pair in zip(pairs.first, pairs.second, strict=True) for sentence in pair][:samples]
    words = sorted(int(mask.sum()) for mask in tokenizer(spec, examples, _LENGTH)(sentences)[1])
    # As long as half of the sentences are, since padding would drown the words; it is cut to other lengths afterwards.
    tokenize = tokenizer(spec, examples, length or words[len(words) // 2])
    batches = [tokenize(sentences[i : i + BATCH]) for i in range(0, len(sentences), BATCH)]
    return batches, tuple(x[:1] for x in batches[0])


def _accuracies(
    exact: "nn.Module", output: Path, examples: "Data | SentencePairs", spec: str, length: int
) -> tuple[float, float]:
    """On the test split, before and after."""
    from ..data import SentencePairs
    from ..quantization import folder

    example = tokenizer(spec, examples, length)(["one"]) if isinstance(examples, SentencePairs) else None
    small = folder.load(output, exact, example)
    return of_network(exact, examples, spec, length), of_network(small, examples, spec, length)


def _result(
    small: "fx.GraphModule",
    found: "Report",
    provenance: dict[str, Any],
    accuracies: tuple[float, float] | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """What result.json of a run folder holds; weights of layers that stay in float32 count, too."""
    from ..quantization.network import layers

    counted = [layer.module.weight for layer in layers(small)]
    weights, nonzero = sum(w.numel() for w in counted), sum(int(w.count_nonzero()) for w in counted)
    final: dict[str, Any] = {"sparsity": 1 - nonzero / weights, "weights": weights, "nonzero": nonzero}
    settings = found.settings
    return {
        **facts,
        "recipe": provenance.get("recipe"),
        "dense": {"test_accuracy": accuracies[0]} if accuracies else {},
        "final": {"test_accuracy": accuracies[1], **final} if accuracies else final,
        "quantized": {"weight_bits": settings["weight_bits"], "activation_bits": settings["activation_bits"]},
    }


def _closing(found: "Report", accuracies: tuple[float, float] | None, output: Path) -> Group:
    from ..quantization.report import COLUMNS, decibels

    rows = [("folder", str(output)), ("calibrated on", f"{found.samples} samples")]
    if found.output_db is not None:
        rows.append(("outputs", f"{decibels(found.output_db)} dB above quantization noise"))
    if accuracies:
        rows.append(("test split", " -> ".join(tables.percent(a) for a in accuracies)))
    rows += [("left in float32", f"{name} ({why})") for name, why in found.left]
    return Group(tables.table(COLUMNS, found.rows(), right=(3, 4, 5, 6)), tables.facts(rows))
