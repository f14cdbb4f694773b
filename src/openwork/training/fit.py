"""One epoch of training and one pass of measuring, under the settings of a schedule."""

import contextlib
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data.base import Data
from ..errors import DataError, TrainingError
from ..losses.base import Loss
from ..recipes.schedule import Schedule
from .attempts import Span
from .divergence import remedy
from .objective import Objective
from .progress import Progress
from .shaper import Shaper

_EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Learned:
    """An epoch's losses, averaged over its steps, without the penalty."""

    loss: float
    parts: dict[str, float]
    """Of each of several losses, before its weight, and of what it is made of."""


@dataclass(frozen=True)
class Trainer:
    """A model with everything that its training steps need but the optimizer, which changes with the phase."""

    model: nn.Module
    data: Data
    schedule: Schedule
    teacher: nn.Module | None = None
    losses: tuple[Loss, ...] = ()
    """What is learned; nothing said: the labels."""

    @property
    def steps_per_epoch(self) -> int:
        """Training steps in an epoch."""
        return self.data.train_steps(self.schedule.batch_size)

    def epoch(self, span: Span, optimizer: torch.optim.Optimizer, shaper: Shaper | None, progress: Progress) -> Learned:
        """Train for one epoch. TrainingError as soon as a loss is not finite.

        The result depends on weights, optimizer, shaper and `span` only: the random state is set from seed and epoch.
        """
        torch.manual_seed(self.schedule.seed * 1_000_003 + span.epoch)
        self.model.train()
        total, steps = 0.0, 0
        parts: defaultdict[str, float] = defaultdict(float)
        for x, y in self.data.train_batches(self.schedule.batch_size, self.schedule.seed, span.epoch):
            self._set_rate(optimizer, span, steps)
            value = self._step(x, y, optimizer, shaper, parts)
            if not math.isfinite(value):
                where = f"step {steps} of epoch {span.epoch} ({span.phase})"
                raise TrainingError(f"the loss is {value} in {where}; {remedy(span.phase, shaper)}")
            total, steps = total + value, steps + 1
            if shaper is not None and shaper.phase == "shape" and self._update_is_due(steps):
                shaper.update(self.fixed_loss)
            progress.batch_done(value)
        if steps == 0:
            raise DataError(
                f"{self.data.name} yields no training batch of {self.schedule.batch_size}; lower schedule.batch_size"
            )
        return Learned(total / steps, {name: part / steps for name, part in parts.items()})

    def fixed_loss(self) -> float:
        """The loss over one training batch, always the same, in evaluation mode: what solvers compare between updates.

        Leaves batch norm's averages and the random state as they are.
        """
        x, y = next(iter(self.data.train_batches(self.schedule.batch_size, self.schedule.seed, 0)))
        x, y = self._input(x), y.to(self._device)
        was_training = self.model.training
        self.model.eval()
        try:
            with _forked(self._device), torch.no_grad():
                torch.manual_seed(self.schedule.seed)
                return self._loss(x, y)[0].item()
        finally:
            self.model.train(was_training)

    def accuracy(self, batches: Iterable[tuple[Tensor, Tensor]]) -> float | None:
        """Share of right labels in [0, 1], in float32; None if there is no batch."""
        right = seen = 0
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                for x, y in batches:
                    right += int((self.model(self._input(x)).argmax(1) == y.to(self._device)).sum())
                    seen += len(y)
        finally:
            self.model.train(was_training)
        return right / seen if seen else None

    def recalibrate(self, epoch: int, batches: int | None = None) -> None:
        """Take batch norm's averages anew over `batches` training batches of `epoch` (None: as many as the schedule's
        `norm_batches`), weights as they are.

        Averages over all of these batches instead of the exponential ones of training; in float32, in which the model
        is evaluated and compiled. Source: Wu and Johnson 2021, arXiv:2105.07576, section 3 ("precise batch norm").
        """
        batches = self.schedule.norm_batches if batches is None else batches
        norms = [m for m in self.model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        if not norms or not batches:
            return
        momenta, was_training = [m.momentum for m in norms], self.model.training
        self.model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average
            norm.train()
        found = self.data.train_batches(self.schedule.batch_size, self.schedule.seed, epoch)
        with torch.no_grad():
            for x, _ in itertools.islice(found, batches):
                self.model(self._input(x))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.model.train(was_training)

    def inputs(self, epoch: int) -> Iterator[Tensor]:
        """Inputs of the training batches of `epoch`."""
        return (self._input(x) for x, _ in self.data.train_batches(self.schedule.batch_size, self.schedule.seed, epoch))

    def validation_accuracy(self) -> float | None:
        """Accuracy on the examples held out of training, None if there are none."""
        return self.accuracy(self.data.validation_batches(_EVALUATION_BATCH))

    def test_accuracy(self) -> float:
        """Accuracy on the test split."""
        accuracy = self.accuracy(self.data.test_batches(_EVALUATION_BATCH))
        if accuracy is None:
            raise DataError(f"{self.data.name} has no test examples; there is nothing to measure accuracy on")
        return accuracy

    def _step(
        self,
        x: Tensor,
        y: Tensor,
        optimizer: torch.optim.Optimizer,
        shaper: Shaper | None,
        parts: defaultdict[str, float],
    ) -> float:
        """One step of the optimizer; the loss without the penalty. `parts` grows by what it is made of."""
        x, y = self._input(x), y.to(self._device)
        optimizer.zero_grad(set_to_none=True)
        levels = shaper.levels if shaper is not None else 1
        loss = 0.0
        for level in range(1, levels + 1):
            with shaper.at_level(level) if shaper is not None and level > 1 else contextlib.nullcontext():
                loss += self._gradients(x, y, shaper, levels, parts)
            if not math.isfinite(loss):
                return loss
        if shaper is not None:
            shaper.tie()
        optimizer.step()
        if shaper is not None:
            shaper.step(optimizer.param_groups[0]["lr"])
        return loss

    def _gradients(
        self, x: Tensor, y: Tensor, shaper: Shaper | None, levels: int, parts: defaultdict[str, float]
    ) -> float:
        """Add the gradients of the loss, as one of `levels` that are averaged; its share without the penalty."""
        loss, found = self._loss(x, y)
        loss = loss / levels
        value = loss.item()
        if math.isfinite(value):
            total = loss if shaper is None else loss + shaper.penalty()
            total.backward()  # type: ignore[no-untyped-call]
        for name, part in found.items():
            parts[name] += part.item() / levels
        return value

    def _loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and what it is made of."""
        return Objective(self.losses or (self.schedule.plain_loss,), self.model, self.teacher)(x, y, self._precision)

    def _update_is_due(self, steps: int) -> bool:
        """Whether the solver updates after `steps` steps of an epoch: evenly spread, the last one at the epoch's
        end."""
        per_epoch, length = self.schedule.updates_per_epoch, self.steps_per_epoch
        return steps * per_epoch // length > (steps - 1) * per_epoch // length

    def _set_rate(self, optimizer: torch.optim.Optimizer, span: Span, step: int) -> None:
        steps = self.steps_per_epoch
        rate = self.schedule.rate(span.phase).at(
            span.of_phase * steps + step, self.schedule.epochs(span.phase) * steps, steps
        )
        for group in optimizer.param_groups:
            group["lr"] = rate

    def _input(self, x: Tensor) -> Tensor:
        if self.schedule.channels_last and x.dim() == 4:
            return x.to(self._device, memory_format=torch.channels_last)
        return x.to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self.schedule.precision == "bfloat16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def make_optimizer(model: nn.Module, schedule: Schedule, phase: str) -> torch.optim.Optimizer:
    """A fresh optimizer for `phase`."""
    settings, parameters = schedule.optimizer, list(model.parameters())
    shared: dict[str, Any] = {
        "lr": schedule.rate(phase).peak,
        "weight_decay": settings.weight_decay,
        "fused": all(map(_fusible, parameters)),
    }
    if settings.kind == "adam":
        return torch.optim.AdamW(parameters, betas=settings.betas, **shared)
    return torch.optim.SGD(parameters, momentum=settings.momentum, nesterov=settings.nesterov, **shared)


def _fusible(parameter: Tensor) -> bool:
    """Whether an optimizer can step over all of it in one kernel. That goes through memory from end to end, so the
    parameter and its gradient must lie there alike and without gaps."""
    dense = parameter.is_contiguous() or (
        parameter.dim() == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    )
    return dense and parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda")


@contextlib.contextmanager
def threads_and_randomness(threads: int | None, device: torch.device) -> Iterator[None]:
    """Run with `threads` torch threads (None: as they are); thread count and random state of the process and of
    `device` come back after."""
    before = torch.get_num_threads()
    with _forked(device):
        try:
            if threads is not None:
                torch.set_num_threads(threads)
            yield
        finally:
            torch.set_num_threads(before)


def _forked(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Random states of the CPU and of `device` come back after; those of other GPUs cost time and matter to nobody."""
    return torch.random.fork_rng([device] if device.type == "cuda" else [])
