"""What layers cost without a clock: bytes in their storage format, and multiply-adds where the network applies them."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from ..constraints.base import Constraint
from ..errors import ShapeError
from ..formats.packed import base
from ..recipes.match import Prunable, weights


@dataclass(frozen=True)
class Call:
    """A module at work: what it was given, and at how many places it applied its weights."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    positions: int
    """Multiply-adds of each weight: pixels, tokens or samples of the output."""


def stored(weight: Tensor, constraint: Constraint | None) -> tuple[str | None, int]:
    """The storage format of a weight that obeys `constraint`, and its bytes in it."""
    if constraint is None:
        return None, 4 * weight.numel()
    plain = weight.detach().float().cpu().contiguous()
    try:
        packed = base.pack(constraint.storage, plain.numpy(), **constraint.layout_of(plain))
    except ShapeError:  # what padding completes may have no whole groups at its edge
        packed = base.pack(Constraint.FORMAT, plain.numpy())
    return packed.kind(), packed.nbytes


def recorded(model: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, list[Call]]:
    """Every call of each module that runs by itself (`unit`) while `model`, in evaluation mode, sees `inputs`."""
    found: dict[str, list[Call]] = {unit(model, item): [] for item in weights(model).values()}

    def note(name: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        found[name].append(Call(args, kwargs, _positions(module, args, kwargs, output)))

    with contextlib.ExitStack() as stack, torch.no_grad():
        stack.enter_context(_layers_one_by_one())
        for name in found:
            hook = lambda m, a, k, o, name=name: note(name, m, a, k, o)  # noqa: E731
            stack.callback(model.get_submodule(name).register_forward_hook(hook, with_kwargs=True).remove)
        model(*inputs)
    return found


def unit(model: nn.Module, item: Prunable) -> str:
    """The module that applies a weight: its layer, but attention where the layer is a part that is never called."""
    parent = item.layer.rpartition(".")[0]
    return parent if isinstance(model.get_submodule(parent), nn.MultiheadAttention) else item.layer


def parameter(name: str, item: Prunable) -> str:
    """The parameter's name in the model, of the weight that rules call `name`."""
    return name if item.kind in ("recurrent", "attention") else f"{item.layer}.weight".lstrip(".")


def _positions(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> int:
    if isinstance(module, nn.Conv2d):
        return int(output.numel()) // module.out_channels
    if isinstance(module, nn.Linear):
        return int(output.numel()) // module.out_features
    given = args[0] if args else next(iter(kwargs.values()))
    given = given.data if isinstance(given, PackedSequence) else given
    width = module.embed_dim if isinstance(module, nn.MultiheadAttention) else module.input_size
    return int(given.numel()) // int(width)  # type: ignore[arg-type]


@contextlib.contextmanager
def _layers_one_by_one() -> Iterator[None]:
    """Inside, PyTorch's transformer layers call their parts, instead of one function that no hook sees."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
