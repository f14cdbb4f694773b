"""The losses of a recipe on a batch: the network and its teacher are run, and the layers that losses name are heard."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import plugins
from ..errors import ModelError, RecipeError, TrainingError
from ..losses.base import Loss, Outputs


def check_layers(losses: Sequence[Loss], model: nn.Module) -> None:
    """RecipeError if a loss names a layer that `model` does not have."""
    known = [name for name, _ in model.named_modules() if name]
    for index, loss in enumerate(losses):
        for name in loss.hears:
            if name not in known:
                raise RecipeError(f"schedule.losses[{index}].layers: {plugins.unknown('layer', name, known)}")


class Objective:
    """The weighted sum of `losses` on `student`, which may learn from `teacher`.

    Raises TrainingError if a loss needs a teacher and there is none, ModelError for a layer that gives no tensor, or
    was not run, or gives another shape in the teacher.

    >>> objective = Objective([Labels(), Feature(layers="layer3")], student, teacher)      # doctest: +SKIP
    >>> objective(x, y).backward()                                                         # doctest: +SKIP
    """

    def __init__(self, losses: Sequence[Loss], student: nn.Module, teacher: nn.Module | None = None) -> None:
        needy = [loss.kind() for loss in losses if loss.TEACHER]
        if needy and teacher is None:
            raise TrainingError(
                f"loss {needy[0]!r} learns from a teacher and there is none; give one, or drop the loss"
            )
        self.losses, self.student, self.teacher = tuple(losses), student, teacher if needy else None
        self._names = tuple(dict.fromkeys(name for loss in losses for name in loss.hears))

    def __call__(
        self,
        x: Tensor,
        labels: Tensor,
        precision: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and what it is made of, by name; networks are run inside `precision()`."""
        student = self._run(self.student, x, precision)
        teacher = None
        if self.teacher is not None:
            with torch.no_grad():
                teacher = self._run(self.teacher, x, precision)
        total: Tensor | None = None
        parts: dict[str, Tensor] = {}
        for name, loss in named(self.losses).items():
            value, made_of = loss.value_and_parts(student, teacher, labels)
            total = value * loss.factor if total is None else total + value * loss.factor
            parts[name] = value.detach()
            parts |= {f"{name}.{part}": found.detach() for part, found in made_of.items()}
        assert total is not None, "no losses"
        return total, parts

    def _run(
        self, model: nn.Module, x: Tensor, precision: Callable[[], contextlib.AbstractContextManager[Any]]
    ) -> Outputs:
        with heard(model, self._names) as layers, precision():
            logits = model(x)
        if missing := [name for name in self._names if name not in layers]:
            raise ModelError(f"layer {missing[0]!r} was not run; name another one in schedule.losses")
        # Losses in float32: bfloat16 has too few digits for a logarithm of probabilities.
        return Outputs(logits.float(), {name: value.float() for name, value in layers.items()})


def named(losses: Sequence[Loss]) -> dict[str, Loss]:
    """Losses by the name that metrics give them: their kind, with a number from the second of a kind on."""
    seen: Counter[str] = Counter()
    found = {}
    for loss in losses:
        seen[loss.kind()] += 1
        count = seen[loss.kind()]
        found[loss.kind() if count == 1 else f"{loss.kind()}{count}"] = loss
    return found


def for_next_phase(losses: Sequence[Loss], means: Mapping[str, float]) -> tuple[Loss, ...]:
    """The losses for the next phase; `means` are those of the parts over the last epoch of the one before."""
    return tuple(
        loss.after({key.removeprefix(f"{name}."): mean for key, mean in means.items() if key.startswith(f"{name}.")})
        for name, loss in named(losses).items()
    )


@contextlib.contextmanager
def heard(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Outputs of the layers `names` as they are run inside; where a layer is run twice, the last one."""
    found: dict[str, Tensor] = {}

    def hook(name: str) -> Callable[..., None]:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor):
                kind = type(output).__name__
                raise ModelError(f"layer {name!r} gives a {kind}, not a tensor; name another one in schedule.losses")
            found[name] = output

        return keep

    handles = [model.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
