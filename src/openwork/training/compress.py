"""`compress`: the whole way from a trained model to pruned weights, resumable at any moment."""

import contextlib
import copy
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data.base import Data
from ..errors import ModelError
from ..losses.base import Loss
from ..recipes.match import match
from ..recipes.recipe import Recipe
from ..recipes.schedule import Schedule
from .checkpoint import Checkpoint, load_tensors, model_tensors, optimizer_tensors, restore_optimizer
from .fit import Span, Trainer, make_optimizer, threads_and_randomness
from .folder import RunFolder
from .objective import after_shaping, check_layers
from .progress import Progress, Silent
from .result import Layer, LevelResult, Result, count, describe
from .shaper import Shaper, strip

LEVEL_BATCHES = 100
"""From how many batches batch norm takes its averages at each level of nested sparsity, unless the schedule says."""


def compress(
    model: nn.Module,
    recipe: Recipe | str | Path,
    data: Data,
    run_dir: str | Path | None = None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    model_name: str | None = None,
    command: str | None = None,
) -> Result:
    """Prune `model` as `recipe` says, training on `data`, and return it with its figures.

    Three phases, each as long as the recipe's schedule says: dense (plain training), shape (the solver pulls weights
    into their constraints), retrain (zeros held). The weights after the last epoch count, whatever validation says;
    the test split is used for the three figures of the result only: dense, right after the cut, final. `model` gets
    its new weights at the end, all at once; until then, and after any error, it is as it was.

    Arguments:
        model: rules can prune its convolutions, linear and recurrent layers and attention. Its output is logits
            `[batch, classes]`. Torch's parametrizations are baked into its weights first, as `strip` does.
        recipe: a recipe, the name of a built-in one, or the path of a YAML file.
        data: see `openwork.data`.
        run_dir: folder for recipe, environment, metrics, checkpoints, weights and result. If it holds an unfinished
        run of the
            same recipe, model and data, that run is resumed after its last whole epoch, and ends with the same weights
            as if it had not been interrupted (bit for bit on one thread). A finished run is returned at once. None: no
            files.
        threads: torch threads while it runs; None: as they are.
        progress: callbacks; see `training.progress.Progress`.
        model_name, command: for the record.

    Raises RecipeError, ShapeError, ModelError where recipe and model do not fit, RunError where the folder belongs to
    another run or cannot be written, TrainingError where the loss is not finite; what was written stays.

    >>> import openwork as ow
    >>> from openwork import plugins
    >>> data = plugins.module("data", "digits").load()
    >>> model = plugins.module("models", "lenet5").build()
    >>> result = ow.compress(model, "demo", data, run_dir="runs/demo")      # doctest: +SKIP
    """
    recipe = recipe if isinstance(recipe, Recipe) else Recipe.load(recipe)
    strip(model)
    match(recipe, model)
    check_layers(recipe.schedule.losses, model)
    _trainable(model)
    run = _Run(
        model,
        recipe,
        data,
        RunFolder(run_dir) if run_dir is not None else None,
        progress or Silent(),
        model_name or type(model).__name__,
        command,
    )
    with threads_and_randomness(threads), run.folder.locked() if run.folder else contextlib.nullcontext():
        if run.folder:
            run.folder.claim(recipe, model, data, torch.get_num_threads(), command)
            if (done := run.folder.finished()) is not None:
                return run.recall(*done)
        return run.complete()


@dataclass
class _Run:
    """A run in progress. `work` is trained; `model` is the user's and gets the weights at the end."""

    model: nn.Module
    recipe: Recipe
    data: Data
    folder: RunFolder | None
    progress: Progress
    model_name: str
    command: str | None
    history: list[dict[str, Any]] = field(default_factory=list)
    dense_accuracy: float | None = None
    hardened: dict[str, float] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)

    def complete(self) -> Result:
        """Train what is left to train, measure, write."""
        schedule, work = self.recipe.schedule, copy.deepcopy(self.model)
        if schedule.channels_last:
            work = work.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        saved = self.folder.checkpoint() if self.folder else None
        trainer, optimizer, shaper = Trainer(work, self.data, schedule), None, None
        if saved is not None:
            trainer, optimizer, shaper = self._restore(trainer, saved)
        phase = saved.phase if saved else None
        for span in spans(schedule)[saved.epochs_done if saved else 0 :]:
            if span.phase != phase:
                phase, optimizer = span.phase, make_optimizer(work, schedule, span.phase)
                if phase != "dense":
                    trainer, shaper = self._begin(trainer, shaper, phase)
            assert optimizer is not None
            self._epoch(trainer, span, optimizer, shaper)
        trainer, shaper = self._begin(trainer, shaper, "retrain")
        return self._finish(trainer, shaper)

    def _begin(self, trainer: Trainer, shaper: Shaper | None, phase: str) -> tuple[Trainer, Shaper]:
        """Enter shaping or retraining: measure the dense model and take it as the teacher, cut before retraining."""
        if shaper is None:
            self._measure_dense(trainer)
            if any(loss.TEACHER for loss in self.recipe.schedule.all_losses):
                trainer = replace(trainer, teacher=_frozen_copy(trainer.model))
            shaper = Shaper(trainer.model, self.recipe, update_every=None)
        if phase == "retrain" and shaper.phase == "shape":
            shaper.harden()
            self._measure_hardened(trainer)
        return replace(trainer, losses=self._losses(phase)), shaper

    def _losses(self, phase: str) -> tuple[Loss, ...]:
        """What a phase learns from; in retraining, losses may depend on what they came to in shaping."""
        if phase == "dense":
            return ()
        shaping = [line for line in self.history if line["phase"] == "shape"]
        if phase == "shape" or not shaping:
            return self.recipe.schedule.all_losses
        return after_shaping(self.recipe.schedule.all_losses, shaping[-1].get("losses", {}))

    def _measure_dense(self, trainer: Trainer) -> None:
        if self.dense_accuracy is None:
            self.dense_accuracy = trainer.test_accuracy()
            self.progress.message(f"dense test accuracy {self.dense_accuracy:.2%}")

    def _measure_hardened(self, trainer: Trainer) -> None:
        """What the cut alone costs: solvers are compared by it."""
        found = {"test_accuracy": trainer.test_accuracy(), "validation_accuracy": trainer.validation_accuracy()}
        self.hardened = {name: value for name, value in found.items() if value is not None}
        self.progress.message(f"test accuracy {found['test_accuracy']:.2%} right after the cut")

    def _epoch(self, trainer: Trainer, span: Span, optimizer: torch.optim.Optimizer, shaper: Shaper | None) -> None:
        schedule = self.recipe.schedule
        self.progress.epoch_started(span.phase, span.epoch, len(spans(schedule)), trainer.steps_per_epoch)
        began = time.perf_counter()
        learned = trainer.epoch(span, optimizer, shaper, self.progress)
        line = {
            "epoch": span.epoch,
            "phase": span.phase,
            "train_loss": learned.loss,
            "losses": learned.parts if schedule.losses and shaper else None,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "validation_accuracy": trainer.validation_accuracy(),
            **(shaper.metrics() if shaper else {}),
            "seconds": time.perf_counter() - began,
        }
        self.history.append({key: value for key, value in line.items() if value is not None})
        if self.folder:
            self.folder.save(self._checkpoint(trainer, span, optimizer, shaper))
        self.progress.epoch_ended(self.history[-1])

    def _checkpoint(
        self, trainer: Trainer, span: Span, optimizer: torch.optim.Optimizer, shaper: Shaper | None
    ) -> Checkpoint:
        return Checkpoint(
            epochs_done=span.epoch + 1,
            phase=span.phase,
            dense_accuracy=self.dense_accuracy,
            hardened=self.hardened,
            seconds=self._seconds(),
            history=self.history,
            model=model_tensors(trainer.model),
            teacher=model_tensors(trainer.teacher) if trainer.teacher else {},
            optimizer=optimizer_tensors(optimizer),
            shaper=shaper.state_dict() if shaper else None,
        )

    def _restore(self, trainer: Trainer, saved: Checkpoint) -> tuple[Trainer, torch.optim.Optimizer, Shaper | None]:
        assert self.folder is not None
        work, schedule, shaper = trainer.model, trainer.schedule, None
        # The shaper first: making one may cut weights (one-shot pruning), and the saved weights must stay as saved.
        if saved.shaper is not None:
            shaper = Shaper(work, self.recipe, update_every=None)
            shaper.load_state_dict(saved.shaper)
        work.load_state_dict(saved.model)
        self.history, self.dense_accuracy, self.earlier_seconds = saved.history, saved.dense_accuracy, saved.seconds
        self.hardened = saved.hardened
        teacher = None
        if saved.teacher:
            teacher = _frozen_copy(work)
            teacher.load_state_dict(saved.teacher)
        trainer = replace(trainer, teacher=teacher, losses=self._losses(saved.phase))
        optimizer = make_optimizer(work, schedule, saved.phase)
        restore_optimizer(optimizer, saved.optimizer)
        self.folder.write_metrics(self.history)
        self.progress.message(f"resuming {self.folder.path} after {saved.epochs_done} of {len(spans(schedule))} epochs")
        return trainer, optimizer, shaper

    def _finish(self, trainer: Trainer, shaper: Shaper) -> Result:
        assert self.dense_accuracy is not None
        levels = tuple(self._level(trainer, shaper, number) for number in range(2, shaper.levels + 1))
        self._recalibrate(trainer, shaper)
        accuracy = trainer.test_accuracy()
        self.model.load_state_dict(trainer.model.state_dict())
        weights, nonzero = count(shaper.matches)
        layers = tuple(describe(m) for m in shaper.matches)
        result = self._result(self.dense_accuracy, accuracy, weights, nonzero, layers, self._seconds(), levels)
        if self.folder:
            self.folder.finish(result)
        self.progress.message(f"final test accuracy {accuracy:.2%} at {result.sparsity:.2%} sparsity")
        for number, level in enumerate(levels, 2):
            share = 1 - level.nonzero / weights
            self.progress.message(f"level {number}: test accuracy {level.accuracy:.2%} at {share:.2%} sparsity")
        return result

    def _level(self, trainer: Trainer, shaper: Shaper, number: int) -> LevelResult:
        """A level of nested sparsity as a network of its own."""
        with shaper.at_level(number):
            _, nonzero = count(shaper.matches)
            alone = replace(trainer, model=copy.deepcopy(trainer.model))
        self._recalibrate(alone, shaper)
        model = copy.deepcopy(self.model)
        model.load_state_dict(alone.model.state_dict())
        return LevelResult(model, alone.test_accuracy(), nonzero)

    @staticmethod
    def _recalibrate(trainer: Trainer, shaper: Shaper) -> None:
        """Batch norm's averages as the schedule wants them. Training through levels mixes those of all levels, so then
        they are always taken anew."""
        batches = trainer.schedule.norm_batches or (LEVEL_BATCHES if shaper.levels > 1 else 0)
        trainer.recalibrate(len(spans(trainer.schedule)), batches)

    def recall(self, content: dict[str, Any], weights: dict[str, torch.Tensor]) -> Result:
        """The result of a run that is finished already."""
        assert self.folder is not None
        self.model.load_state_dict(weights)
        self.hardened = content.get("hardened", {})
        if (saved := self.folder.checkpoint()) is not None:
            self.history = saved.history
        self.progress.message(f"{self.folder.path} is finished; this is its result")
        final = content["final"]
        levels = tuple(self._recalled(number, level) for number, level in enumerate(content.get("levels", ()), 2))
        layers = tuple(Layer(**{**layer, "shape": tuple(layer["shape"])}) for layer in content["layers"])
        return self._result(
            content["dense"]["test_accuracy"],
            final["test_accuracy"],
            final["weights"],
            final["nonzero"],
            layers,
            content["seconds"],
            levels,
        )

    def _recalled(self, number: int, level: dict[str, Any]) -> LevelResult:
        assert self.folder is not None
        model = copy.deepcopy(self.model)
        model.load_state_dict(load_tensors(self.folder.level(number))[0])
        return LevelResult(model, level["test_accuracy"], level["nonzero"])

    def _result(
        self,
        dense: float,
        accuracy: float,
        weights: int,
        nonzero: int,
        layers: tuple[Layer, ...],
        seconds: float,
        levels: tuple[LevelResult, ...],
    ) -> Result:
        return Result(
            model=self.model,
            model_name=self.model_name,
            recipe_name=self.recipe.name,
            data_name=self.data.name,
            dense_accuracy=dense,
            accuracy=accuracy,
            weights=weights,
            nonzero=nonzero,
            layers=layers,
            history=tuple(self.history),
            seconds=seconds,
            command=self.command,
            run_dir=self.folder.path if self.folder else None,
            levels=levels,
            hardened=self.hardened,
        )

    def _seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started


def spans(schedule: Schedule) -> list[Span]:
    """All epochs of a run in order."""
    phases = [(phase, i) for phase in ("dense", "shape", "retrain") for i in range(schedule.epochs(phase))]
    return [Span(phase, epoch, of_phase) for epoch, (phase, of_phase) in enumerate(phases)]


def _trainable(model: nn.Module) -> None:
    for name, tensor in model_tensors(model).items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ModelError(f"{name!r} holds NaN or infinite values; start from finite weights")


def _frozen_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).eval().requires_grad_(False)
