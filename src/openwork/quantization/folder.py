"""A quantized network in a folder: weights under plain names, and how activations are rounded as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import RunError
from ..files import write_bytes, write_text
from .network import captured, to_device_of
from .places import find_places, insert
from .quantize import report_of, with_report
from .report import Report

WEIGHTS, FIGURES = "model.safetensors", "quantization.json"
QUANTIZED = "quantized"
"""What a file of weights says under `openwork` if it is a quantized network's."""
_VERSION = 2


def save(network: nn.Module, folder: str | Path, facts: Mapping[str, Any] | None = None) -> Path:
    """Write a module that `openwork.quantize` returned into `folder`, and return that.

    Arguments:
        facts: JSON values to keep beside the figures, such as what the model is called.

    Raises `RunError` if the folder cannot be written.

        save(ow.quantize(model, batches), "runs/int8", {"model": "cifar10_resnet56"})
    """
    found, folder = report_of(network), Path(folder)
    tensors = {
        name: t.detach().clone(memory_format=torch.contiguous_format) for name, t in network.state_dict().items()
    }
    write_bytes(folder / WEIGHTS, safetensors.torch.save(tensors, {"openwork": QUANTIZED}))
    document = {**(facts or {}), "version": _VERSION, **found.to_dict()}
    write_text(folder / FIGURES, json.dumps(document, indent=1, allow_nan=False))
    return folder


def load(folder: str | Path, model: nn.Module, example_inputs: tuple[Tensor, ...] | None = None) -> nn.Module:
    """The quantized network in `folder`.

    Arguments:
        model: the float32 model that was quantized, with any weights: it says how layers are connected, as safetensors
            files hold tensors only.
        example_inputs: what one call takes, where it is not what the network was quantized for: another length.

    Raises `RunError` if the folder holds no quantized network, a damaged one, or that of another model.

        network = load("runs/int8", models.resolve("cifar10_resnet56"))
    """
    found, folder = read(folder), Path(folder)
    network = captured(model, to_device_of(model, example_inputs or _example(found)))
    try:
        tensors = safetensors.torch.load_file(folder / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{folder / WEIGHTS} cannot be read ({error}); quantize again") from error
    where = find_places(network, found.settings["leave"], found.settings["per_row"])
    inputs = {name: where.values.index(node) for name, node in where.inputs.items()}
    own = network.state_dict()
    if inputs != found.inputs or _shapes(own) != _shapes(tensors):
        raise RunError(
            f"{folder} was quantized from another model than this {type(model).__name__}, or by other versions of "
            "torch or Openwork; quantize it again"
        )
    insert(network, where, [place.grid for place in found.places])
    network.load_state_dict(tensors)
    return with_report(network, found)


def holds(weights: Path) -> bool:
    """Whether a file of weights is a quantized network's."""
    try:
        with safetensors.safe_open(weights, framework="pt") as file:
            return (file.metadata() or {}).get("openwork") == QUANTIZED
    except (OSError, safetensors.SafetensorError):
        return False  # whoever reads it says what is wrong


def read(folder: str | Path) -> Report:
    """The figures of the quantized network in `folder`; RunError if there are none."""
    path = Path(folder) / FIGURES
    try:
        document = json.loads(path.read_text())
        if document["version"] != _VERSION:
            raise RunError(f"{path} was written by another version of Openwork; quantize again")
        return Report.from_dict(document)
    except FileNotFoundError:
        raise RunError(f"{folder} holds no quantized network (no {FIGURES}); make one with openwork.quantize") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged ({error!r}); quantize again") from error


def _example(found: Report) -> tuple[Tensor, ...]:
    """Inputs of the shapes and types that the network was captured with."""
    return tuple(torch.ones(shape, dtype=getattr(torch, dtype)) for shape, dtype in found.takes)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
