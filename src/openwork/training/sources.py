"""What layers read: samples of the values, and where these come from."""

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..quantization.histogram import Histogram

SAMPLE = 2**15
"""Values of a batch that are looked at, about."""


@dataclass
class Seen:
    """What a layer was given."""

    values: Histogram = field(default_factory=Histogram)
    """Of samples, and of the largest and the least of all values."""
    infinite: bool = False
    readers: set[str] = field(default_factory=set)
    """The layer that was the first to read the same value, in each batch."""
    makers: set[str] = field(default_factory=set)
    """The module that gave the value, in each batch; empty if none did, or it was changed since."""

    def hear(self, x: Tensor) -> None:
        """Take a value in."""
        x = x.detach().float()
        low, high = x.aminmax()
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            self.infinite = True
        else:
            self.values.add(torch.cat([sample(x).flatten(), low[None], high[None]]))


def sample(x: Tensor) -> Tensor:
    """Some whole examples of a batch [batch, ...], about SAMPLE values."""
    return x.detach()[: max(1, SAMPLE * len(x) // max(1, x.numel()))]


@torch.no_grad()
def observed(model: nn.Module, layers: Collection[str], inputs: Iterable[Tensor]) -> dict[str, Seen]:
    """What `layers` read while `model`, in evaluation mode, sees `inputs`, by name; of those that are run.

    A module counts as the maker of a value if it runs once for each input and it was the last to return it.
    """
    watch, was_training, count = _Watch(), model.training, 0
    hooks = [module.register_forward_hook(watch.after(name)) for name, module in model.named_modules() if name]
    hooks += [
        model.get_submodule(name).register_forward_pre_hook(watch.before(name), with_kwargs=True) for name in layers
    ]
    try:
        model.eval()
        for x in inputs:
            watch.made, watch.read = [], []
            model(x)
            count += 1
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    for seen in watch.seen.values():
        if len(seen.makers) > 1 or any(watch.calls[name] != count for name in seen.makers):
            seen.makers = set()
    return watch.seen


class _Watch:
    """Follows tensors by identity, without keeping them."""

    def __init__(self) -> None:
        self.seen: dict[str, Seen] = {}
        self.calls: Counter[str] = Counter()
        self.made: list[tuple[Callable[[], Tensor | None], int, str]] = []
        self.read: list[tuple[Callable[[], Tensor | None], str]] = []

    def after(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            self.calls[name] += 1
            if isinstance(output, Tensor):
                self.made.append((weakref.ref(output), output._version, name))

        return note

    def before(self, name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            x = args[0] if args else kwargs["input"]
            seen = self.seen.setdefault(name, Seen())
            maker = next(((version, n) for ref, version, n in reversed(self.made) if ref() is x), None)
            seen.makers.add(maker[1] if maker is not None and maker[0] == x._version else "")
            seen.readers.add(next((n for ref, n in self.read if ref() is x), name))
            self.read.append((weakref.ref(x), name))
            seen.hear(x)

        return note
