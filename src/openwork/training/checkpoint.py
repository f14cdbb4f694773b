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

_VERSION = 2

_OF_SHAPER = ("solver", "masks", "members", "levels")
"""What of a shaper's state is tensors by name."""


@dataclass
class Checkpoint:
    """The state of a run between two epochs."""

    epochs_done: int
    """Epochs of the whole run that are behind."""
    phase: str
    """Phase of the last epoch, to which the optimizer's buffers belong."""
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
    shaper: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Replace `path`, whole or not at all."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "model": self.model,
            "teacher": self.teacher,
            "optimizer": self.optimizer,
        }
        progress: dict[str, Any] = {
            "version": _VERSION,
            "epochs_done": self.epochs_done,
            "phase": self.phase,
            "dense_accuracy": self.dense_accuracy,
            "hardened": self.hardened,
            "seconds": self.seconds,
            "history": self.history,
            "shaper": None,
        }
        if self.shaper is not None:
            groups |= {name: self.shaper[name] for name in _OF_SHAPER}
            progress["shaper"] = {key: value for key, value in self.shaper.items() if key not in _OF_SHAPER}
        tensors = {f"{group}/{name}": tensor for group, members in groups.items() for name, tensor in members.items()}
        save_tensors(path, tensors, {"progress": json.dumps(progress)})

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read what `save` wrote; RunError if it is damaged or of another version."""
        tensors, metadata = load_tensors(path)
        try:
            progress = json.loads(metadata["progress"])
        except (KeyError, ValueError):
            raise RunError(f"{path} is not a checkpoint of Openwork; delete it to start the run anew") from None
        if progress.pop("version", None) != _VERSION:
            raise RunError(f"{path} was written by another version of Openwork; delete it to start the run anew")
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = tensor
        of_shaper = {name: groups.pop(name, {}) for name in _OF_SHAPER}
        if progress["shaper"] is not None:
            progress["shaper"] |= of_shaper
        return cls(**{**progress, **groups})


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
        # Same layout as before the interruption: elementwise loops may round differently over other strides.
        like = (
            torch.empty_like(parameter, requires_grad=False)
            if saved.shape == parameter.shape
            else torch.empty_like(saved)
        )
        optimizer.state[parameter][name] = like.copy_(saved)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
