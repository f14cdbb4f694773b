"""Checkpoints: everything that resuming needs in one safetensors file, numbers as JSON in its metadata; no pickle."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..errors import ModelError, RunError
from ..files import write_bytes

_VERSION = 3

_TENSOR = "$tensor"
"""Stands in the numbers where a tensor belongs; beside it its name in the file."""


@dataclass
class Checkpoint:
    """The state of a run between two epochs."""

    epochs_done: int
    """Epochs of the whole run that are behind."""
    dense_accuracy: float | None
    """Test accuracy of the dense model, once it was measured."""
    seconds: float
    """Time spent so far, interruptions left out."""
    history: list[dict[str, Any]]
    """Lines of metrics.jsonl."""
    model: dict[str, Tensor]
    teacher: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    hardened: dict[str, float] = field(default_factory=dict)
    """Accuracies right after the cut, once they were measured."""
    quantized: dict[str, dict[str, float]] = field(default_factory=dict)
    """Accuracies before quantization and before training with it, once they were measured."""
    shaper: dict[str, Any] | None = None
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Partial models from which the next step begins, as fields of `Candidate`."""
    tried: list[dict[str, Any]] = field(default_factory=list)
    """Those of the step at hand."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """Figures of the steps that are behind, as fields of `StepResult`."""

    def save(self, path: Path) -> None:
        """Replace `path`, whole or not at all."""
        tensors: dict[str, Tensor] = {}
        numbers = {"version": _VERSION, **_without_tensors(vars(self), "", tensors)}
        save_tensors(path, tensors, {"progress": json.dumps(numbers)})

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read what `save` wrote; RunError if it is damaged or of another version."""
        tensors, metadata = load_tensors(path)
        try:
            numbers = json.loads(metadata["progress"])
        except (KeyError, ValueError):
            raise RunError(f"{path} is not a checkpoint of Openwork; delete it to start the run anew") from None
        if numbers.pop("version", None) != _VERSION:
            raise RunError(f"{path} was written by another version of Openwork; delete it to start the run anew")
        return cls(**_with_tensors(numbers, tensors))


def _without_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` with every tensor moved to `tensors`, under the path that leads to it."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        return {key: _without_tensors(inner, f"{name}/{key}" if name else key, tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_tensors(inner, f"{name}/{at}", tensors) for at, inner in enumerate(value)]
    return value


def _with_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `_without_tensors` took apart."""
    if isinstance(value, dict):
        if _TENSOR in value:
            return tensors[value[_TENSOR]]
        return {key: _with_tensors(inner, tensors) for key, inner in value.items()}
    return [_with_tensors(inner, tensors) for inner in value] if isinstance(value, list) else value


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; tensors may share memory or be strided."""
    plain = {name: t.detach().clone(memory_format=torch.contiguous_format).cpu() for name, t in tensors.items()}
    write_bytes(path, safetensors.torch.save(plain, metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; RunError if it is damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path} cannot be read ({error}); delete it to start the run anew") from None


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The model's state by name; ModelError if a part of it is no tensor, since no file format here could hold it."""
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"{name!r} in the model's state is a {type(value).__name__}, not a tensor; keep it elsewhere"
            )
    return dict(state)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Buffers of an optimizer as `INDEX/NAME`, INDEX counting its parameters."""
    return {
        f"{index}/{name}": value
        for index, parameter in enumerate(_parameters(optimizer))
        for name, value in optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave, in the memory layout of the parameters."""
    parameters = _parameters(optimizer)
    for key, saved in tensors.items():
        index, _, name = key.partition("/")
        parameter = parameters[int(index)]
        # Same layout as before the interruption: elementwise loops may round differently over other strides. Counters
        # of steps lie on the CPU, but for kernels that read them.
        like = (
            torch.empty_like(parameter, requires_grad=False)
            if saved.shape == parameter.shape
            else torch.empty_like(saved, device=parameter.device if optimizer.defaults.get("fused") else "cpu")
        )
        optimizer.state[parameter][name] = like.copy_(saved)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
