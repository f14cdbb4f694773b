"""A run of `compress`: its attempts one after the other, resumable after every epoch."""

import copy
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import nn

from ..data.base import Data
from ..losses.base import Loss
from ..quantization import rounding
from ..recipes.recipe import Recipe
from ..recipes.stages import Stage
from ..slimming.purify import purify_
from .attempts import Attempt, Span, attempts
from .checkpoint import Checkpoint, load_tensors, model_tensors, optimizer_tensors, restore_optimizer
from .divergence import require_convergence
from .fit import Trainer, make_optimizer
from .folder import RunFolder
from .hold import Hold
from .levels import level, recalibrate
from .objective import for_next_phase
from .progress import Progress
from .result import LevelResult, Result, StepResult, count, describe
from .shaper import Shaper
from .shortlist import Candidate, Shortlist


@dataclass
class Run:
    """A run in progress. A copy of `model` is trained; `model` is the user's and gets the weights at the end."""

    model: nn.Module
    recipe: Recipe
    stages: tuple[Stage, ...]
    data: Data
    folder: RunFolder | None
    progress: Progress
    model_name: str
    command: str | None
    where: torch.device | None = None
    """The device to train on; None: where `model` is."""
    history: list[dict[str, Any]] = field(default_factory=list)
    dense_accuracy: float | None = None
    hardened: dict[str, float] = field(default_factory=dict)
    quantized: dict[str, dict[str, float]] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    steps: list[StepResult] = field(default_factory=list)
    note: str = ""
    trainer: Trainer = field(init=False)
    """There as soon as training begins."""

    def __post_init__(self) -> None:
        self.attempts = attempts([stage.recipe.schedule for stage in self.stages], self.recipe.candidates)
        self.short = Shortlist(self.recipe.candidates)
        self.shaper: Shaper | None = None
        self.optimizer: torch.optim.Optimizer | None = None
        self.part: tuple[str, int] | None = None
        self.at_hand: Candidate | None = None

    def complete(self) -> Result:
        """Train what is left to train, measure, write."""
        work = self.copied()
        if self.recipe.schedule.channels_last:
            work = work.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.trainer = Trainer(work, self.data, self.recipe.schedule)
        saved = self.folder.checkpoint() if self.folder else None
        done = saved.epochs_done if saved else 0
        # Checkpoints are written after epochs, so the attempt to go on with is the one of the last epoch.
        at = next((i for i, a in enumerate(self.attempts) if any(s.epoch == done - 1 for s in a.spans)), 0)
        for attempt in self.attempts[at:]:
            self._begin(attempt, saved if attempt is self.attempts[at] else None)
            for span in attempt.spans:
                if span.epoch >= done:
                    self._epoch(attempt, span)
            self._end(attempt)
            if self.note:
                break
        return self._finish()

    @property
    def device(self) -> torch.device:
        """Where the copy is trained."""
        return next(self.model.parameters()).device if self.where is None else self.where

    def copied(self) -> nn.Module:
        """A copy of `model` where it is trained."""
        model = copy.deepcopy(self.model)
        return model if self.where is None else model.to(self.where)

    def _begin(self, attempt: Attempt, saved: Checkpoint | None) -> None:
        """Take up the model that an attempt begins from, or the attempt where it was interrupted."""
        stage, work = self.stages[attempt.step], self.trainer.model
        self.trainer = replace(self.trainer, schedule=stage.recipe.schedule)
        self.shaper, self.optimizer, self.part = None, None, None
        self.hardened, self.quantized = {}, {}
        rounding.unsimulate(work)
        if saved is not None:
            self._restore(attempt, saved)
        elif attempt.step:
            work.load_state_dict(self.short.kept[attempt.parent].model)
            self.shaper = self._shaper(attempt)
        if len(self.stages) > 1:
            self.progress.message(self._where(attempt))

    def _shaper(self, attempt: Attempt) -> Shaper:
        """For the step of `attempt`, holding what its parent held."""
        work, held = self.trainer.model, None
        if attempt.step:
            held = Hold.of(work).loaded(self.short.kept[attempt.parent].shaper)
        return Shaper(work, self.stages[attempt.step].recipe, update_every=None, held=held)

    def _enter(self, attempt: Attempt, part: tuple[str, int]) -> None:
        """Enter a part of an attempt: measure the dense model and take it as the teacher before shaping, cut before
        retraining, begin to round before quantization."""
        phase, restart = part
        if phase == "dense":
            return
        if self.shaper is None:
            self._measure_dense()
            if any(loss.TEACHER for loss in self.recipe.schedule.all_losses):
                self.trainer = replace(self.trainer, teacher=_frozen_copy(self.trainer.model))
            self.shaper = self._shaper(attempt)
        if phase in ("retrain", "quantize") and self.shaper.phase == "shape":
            self.shaper.harden(self.stages[attempt.step].freeze)
            self._measure_hardened(attempt)
            self._purify()
        elif restart:
            self.shaper.restart()
        if phase == "quantize" and self.shaper.phase == "retrain":
            self._quantize(attempt)
        self.trainer = replace(self.trainer, losses=self._losses(phase))

    def _losses(self, phase: str) -> tuple[Loss, ...]:
        """What a phase learns from; losses may depend on what they came to before the cut, or before quantization."""
        if phase == "dense":
            return ()
        earlier = {"retrain": ("shape",), "quantize": ("shape", "retrain")}.get(phase, ())
        before = [line for line in self.history if line["phase"] in earlier]
        if not before:
            return self.recipe.schedule.all_losses
        return for_next_phase(self.recipe.schedule.all_losses, before[-1].get("losses", {}))

    def _purify(self) -> None:
        """Empty what is nearly empty in constrained layers, for good; in steps that only zero weights."""
        work, shaper = self.trainer.model, self.shaper
        assert shaper is not None
        if self.recipe.purify is None or any(m.constraint.tied for m in shaper.matches if m.constraint):
            return
        example = self.data.example_input.to(next(work.parameters()).device)
        constrained = {m.name for m in shaper.matches if m.constraint is not None}
        emptied = purify_(work, (example,), self.recipe.purify, constrained)
        shaper.tighten()
        small, useless = sum(e.small for e in emptied), sum(e.useless for e in emptied)
        self.progress.message(f"purified: {small:,} weights in nearly empty units, {useless:,} that they made useless")

    def _measure_dense(self) -> None:
        if self.dense_accuracy is None:
            self.dense_accuracy = self.trainer.test_accuracy()
            self.progress.message(f"dense test accuracy {self.dense_accuracy:.2%}")

    def _measure_hardened(self, attempt: Attempt) -> None:
        """What the last cut alone costs: solvers are compared by it, attempts are not."""
        if attempt.step + 1 == len(self.stages):
            self.hardened = self._accuracies("right after the cut")

    def _quantize(self, attempt: Attempt) -> None:
        """Let layers round from now on; what that costs is measured before it, and before any training with it."""
        assert self.shaper is not None and self.shaper.recipe.quantize is not None
        recalibrate(self.trainer, self.shaper, attempt.end)
        self.quantized = {"float32": self._accuracies("before quantization")}
        self.shaper.quantize(self.trainer.inputs(attempt.end))
        self.quantized["calibrated"] = self._accuracies("quantized without training")

    def _accuracies(self, when: str) -> dict[str, float]:
        trainer = self.trainer
        found = {"test_accuracy": trainer.test_accuracy(), "validation_accuracy": trainer.validation_accuracy()}
        self.progress.message(f"test accuracy {found['test_accuracy']:.2%} {when}")
        return {name: value for name, value in found.items() if value is not None}

    def _epoch(self, attempt: Attempt, span: Span) -> None:
        trainer = self.trainer
        if span.part != self.part:
            self.part, self.optimizer = span.part, make_optimizer(trainer.model, trainer.schedule, span.phase)
            self._enter(attempt, span.part)
        assert self.optimizer is not None
        trainer, shaper = self.trainer, self.shaper
        self.progress.epoch_started(span.phase, span.epoch, self.attempts[-1].end, trainer.steps_per_epoch)
        began = time.perf_counter()
        learned = trainer.epoch(span, self.optimizer, shaper, self.progress)
        weighted = shaper is not None and bool(trainer.schedule.losses or trainer.schedule.distillation)
        line = {
            "epoch": span.epoch,
            "phase": span.phase,
            "step": attempt.step + 1 if len(self.stages) > 1 else None,
            "candidate": attempt.parent + 1 if self.recipe.candidates > 1 else None,
            "train_loss": learned.loss,
            "losses": learned.parts if weighted else None,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "validation_accuracy": trainer.validation_accuracy(),
            **(shaper.metrics() if shaper else {}),
            "seconds": time.perf_counter() - began,
        }
        require_convergence(line, self.history, self.data, weighted, shaper)
        self.history.append({key: value for key, value in line.items() if value is not None})
        if self.folder:
            self.folder.save(self._checkpoint(span, self.optimizer))
        self.progress.epoch_ended(self.history[-1])

    def _checkpoint(self, span: Span, optimizer: torch.optim.Optimizer) -> Checkpoint:
        trainer, shaper = self.trainer, self.shaper
        return Checkpoint(
            epochs_done=span.epoch + 1,
            dense_accuracy=self.dense_accuracy,
            hardened=self.hardened,
            quantized=self.quantized,
            seconds=self._seconds(),
            history=self.history,
            model=model_tensors(trainer.model),
            teacher=model_tensors(trainer.teacher) if trainer.teacher else {},
            optimizer=optimizer_tensors(optimizer),
            shaper=shaper.state_dict() if shaper else None,
            kept=[vars(candidate) for candidate in self.short.kept],
            tried=[vars(candidate) for candidate in self.short.tried],
            steps=[asdict(step) for step in self.steps],
        )

    def _restore(self, attempt: Attempt, saved: Checkpoint) -> None:
        assert self.folder is not None
        work = self.trainer.model
        self.short.kept = [Candidate(**fields) for fields in saved.kept]
        self.short.tried = [Candidate(**fields) for fields in saved.tried]
        self.steps = [StepResult(**{**fields, "tried": tuple(fields["tried"])}) for fields in saved.steps]
        # The shaper first: making one may cut weights (one-shot pruning), and the saved weights must stay as saved.
        if saved.shaper is not None:
            self.shaper = self._shaper(attempt)
            self.shaper.load_state_dict(saved.shaper)
        work.load_state_dict(saved.model)
        self.history, self.dense_accuracy, self.earlier_seconds = saved.history, saved.dense_accuracy, saved.seconds
        self.hardened, self.quantized, teacher = saved.hardened, saved.quantized, None
        if saved.teacher:
            teacher = _frozen_copy(work)
            teacher.load_state_dict(saved.teacher)
        span = next(s for s in attempt.spans if s.epoch == saved.epochs_done - 1)
        self.trainer = replace(self.trainer, teacher=teacher, losses=self._losses(span.phase))
        self.part, self.optimizer = span.part, make_optimizer(work, self.trainer.schedule, span.phase)
        restore_optimizer(self.optimizer, saved.optimizer)
        self.folder.write_metrics(self.history)
        self.progress.message(
            f"resuming {self.folder.path} after {saved.epochs_done} of {self.attempts[-1].end} epochs"
        )

    def _end(self, attempt: Attempt) -> None:
        """Cut and quantize if no epoch has, end that, and compare the model with the others of its step."""
        quantizes = self.stages[attempt.step].recipe.quantize is not None
        self._enter(attempt, ("quantize" if quantizes else "retrain", 0))
        assert self.shaper is not None
        if quantizes:
            self.shaper.round()
        recalibrate(self.trainer, self.shaper, attempt.end)
        if len(self.stages) == 1 and self.recipe.floor is None:
            return
        accuracy, sparsity = self.trainer.validation_accuracy(), self.shaper.sparsity()
        weights = {name: t.detach().clone() for name, t in model_tensors(self.trainer.model).items()}
        self.at_hand = Candidate(
            attempt.step,
            attempt.parent,
            accuracy,
            self.hardened,
            sparsity,
            weights,
            self.shaper.state_dict(),
            self.quantized,
        )
        self.short.tried.append(self.at_hand)
        said = "" if accuracy is None else f"validation accuracy {accuracy:.2%} at "
        self.progress.message(f"{self._where(attempt)}: {said}{sparsity:.2%} sparsity")
        if attempt.last:
            self._settle()

    def _settle(self) -> None:
        """Choose among the attempts at a step; below the floor the run ends."""
        found, floor = self.short.settle(self.recipe.floor), self.recipe.floor
        self.steps.append(found)
        if not found.kept:
            self.note = (
                f"step {found.step} of {len(self.stages)} ends with validation accuracy "
                f"{found.validation_accuracy:.2%}, below the floor of {floor:.2%}; the result is the model of step "
                f"{self.short.newest().step + 1}"
            )
            self.progress.message(self.note)

    def _where(self, attempt: Attempt) -> str:
        steps, tries = len(self.stages), sum(a.step == attempt.step for a in self.attempts)
        of = f", candidate {attempt.parent + 1} of {tries}" if self.recipe.candidates > 1 else ""
        return f"step {attempt.step + 1} of {steps}{of}"

    def _finish(self) -> Result:
        if self.short.kept and (chosen := self.short.newest()) is not self.at_hand:
            self._take_back(chosen)
        assert self.dense_accuracy is not None and self.shaper is not None
        trainer, shaper = self.trainer, self.shaper
        epochs = self.attempts[-1].end
        levels = tuple(level(trainer, shaper, n, self.model, epochs) for n in range(2, shaper.levels + 1))
        accuracy = trainer.test_accuracy()
        self.model.load_state_dict(trainer.model.state_dict())
        rounding.simulate(self.model, rounding.grids(trainer.model))
        matches = shaper.obeyed()
        weights, nonzero = count(matches)
        result = Result(
            model=self.model,
            model_name=self.model_name,
            recipe_name=self.recipe.name,
            data_name=self.data.name,
            dense_accuracy=self.dense_accuracy,
            accuracy=accuracy,
            weights=weights,
            nonzero=nonzero,
            layers=tuple(describe(m) for m in matches),
            history=tuple(self.history),
            seconds=self._seconds(),
            command=self.command,
            run_dir=self.folder.path if self.folder else None,
            levels=levels,
            hardened=self.hardened,
            quantized=self.quantized,
            steps=tuple(self.steps) if len(self.stages) > 1 else (),
            note=self.note,
        )
        if self.folder:
            self.folder.finish(result)
        self.progress.message(f"final test accuracy {accuracy:.2%} at {result.sparsity:.2%} sparsity")
        for number, found in enumerate(levels, 2):
            share = 1 - found.nonzero / weights
            self.progress.message(f"level {number}: test accuracy {found.accuracy:.2%} at {share:.2%} sparsity")
        return result

    def _take_back(self, chosen: Candidate) -> None:
        """Make a partial model the one at hand."""
        stage, work = self.stages[chosen.step], self.trainer.model
        self.trainer = replace(self.trainer, schedule=stage.recipe.schedule)
        self.hardened, self.quantized = chosen.hardened, chosen.quantized
        rounding.unsimulate(work)
        self.shaper = Shaper(work, stage.recipe, update_every=None)
        self.shaper.load_state_dict(chosen.shaper)
        work.load_state_dict(chosen.model)

    def recall(self, content: dict[str, Any], weights: dict[str, torch.Tensor]) -> Result:
        """The result of a run that is finished already."""
        assert self.folder is not None
        self.model.load_state_dict(weights)
        rounding.simulate(self.model, self.folder.grids())
        if (saved := self.folder.checkpoint()) is not None:
            self.history = saved.history
        self.progress.message(f"{self.folder.path} is finished; this is its result")
        levels = [self._recalled(number, found) for number, found in enumerate(content.get("levels", ()), 2)]
        return Result.from_dict(content, self.model, levels, self.history, self.folder.path)

    def _recalled(self, number: int, found: dict[str, Any]) -> LevelResult:
        assert self.folder is not None
        model = copy.deepcopy(self.model)
        model.load_state_dict(load_tensors(self.folder.level(number))[0])
        return LevelResult(model, found["test_accuracy"], found["nonzero"])

    def _seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.started


def _frozen_copy(model: nn.Module) -> nn.Module:
    return rounding.unsimulate(copy.deepcopy(model)).eval().requires_grad_(False)
