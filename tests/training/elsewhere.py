"""A device that is not there: tensors that lie in memory like all others, say that they lie elsewhere, and cannot be
mixed with those that do not. What runs on it runs on a GPU, too, as far as devices go.

PyTorch's own stand-in, fake tensors, has no numbers, and projections decide by numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("xpu", 0)
"""Called as a kind of GPU that nobody here has."""

ACROSS = {"copy_"}
"""What takes tensors of two devices, and gives one on the first."""
TOGETHER = {"stack", "cat", "concat", "hstack", "vstack"}
"""What takes no single numbers of the CPU."""


class Elsewhere(torch.Tensor):
    """A tensor on `DEVICE`."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Inside, there is one more device; modules go there with `.to(...)`."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Mode():
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


def _run(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", "")
    if name == "__get__" and func == torch.Tensor.device.__get__:  # type: ignore[attr-defined]
        return DEVICE if isinstance(args[0], Elsewhere) else _plainly(func, args, kwargs)
    if name in ("_parse_to", "_has_compatible_shallow_copy_type"):  # of `Module.to`
        return _plainly(func, args, kwargs)
    if name in ("numpy", "__array__") and isinstance(args[0], Elsewhere) and not kwargs.get("force"):
        raise TypeError("can't convert a tensor on another device to numpy; use Tensor.cpu() first")
    if name == "__deepcopy__" and isinstance(args[0], Elsewhere):
        return _deep_copy(args[0], args[1])
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(t, Elsewhere) for t in tensors)
    if name == "cpu" or (name == "numpy" and there):
        there, moved = False, True
    elif name == "to" and (target := _target(args[1:], kwargs)) is not None:
        there, moved = target == DEVICE, (target == DEVICE) != isinstance(args[0], Elsewhere)
    else:
        moved = False
        _require_one_device(name, args, tensors)
        asked = kwargs.get("device")
        if asked is not None:
            there = torch.device(asked).type == DEVICE.type
        elif name in ACROSS:
            there = isinstance(args[0], Elsewhere)
    found = _plainly(func, *tree_map(_unnamed, (args, kwargs)))
    if moved and isinstance(found, torch.Tensor):
        found = _plainly(torch.clone, (found,), {})

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, Elsewhere) == there:
            return value
        return _plainly(torch.Tensor.as_subclass, (value, Elsewhere if there else torch.Tensor), {})

    return found if isinstance(found, torch.Size) else tree_map(placed, found)


def _plainly(func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _unnamed(value: Any) -> Any:
    """Devices as they really are."""
    return torch.device("cpu") if isinstance(value, torch.device) and value.type == DEVICE.type else value


def _target(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.device | None:
    """Where `Tensor.to` goes."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor):
            return DEVICE if isinstance(value, Elsewhere) else torch.device("cpu")
        if isinstance(value, torch.device | str):
            return torch.device(value)
    return None


def _require_one_device(name: str, args: tuple[Any, ...], tensors: list[torch.Tensor]) -> None:
    if name in ACROSS:
        return
    if name in ("__getitem__", "__setitem__") and isinstance(args[0], Elsewhere):
        tensors = [t for t in (args[0], *args[2:]) if isinstance(t, torch.Tensor)]  # indices may lie on the CPU
    here = [t for t in tensors if not isinstance(t, Elsewhere) and (t.dim() > 0 or name in TOGETHER)]
    if here and any(isinstance(t, Elsewhere) for t in tensors):
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {DEVICE} and cpu")


def _deep_copy(tensor: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    if id(tensor) not in memo:
        copied = tensor.detach().clone().requires_grad_(tensor.requires_grad)
        if isinstance(tensor, torch.nn.Parameter):
            copied._is_param = True  # type: ignore[attr-defined]
        memo[id(tensor)] = copied
    found: torch.Tensor = memo[id(tensor)]
    return found
