"""How long and with which step sizes a network is trained: epochs of each phase, rates, optimizer, losses,
precision."""

import math
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from ..config import Config
from ..errors import RecipeError
from ..losses.base import Loss
from ..losses.labels import Labels
from ..losses.soft import Soft

SEEDS = 2**40
"""Seeds are less: the generator's own is made of seed and epoch, and has 64 bits."""
PHASES = ("dense", "shape", "retrain", "quantize")
"""Of a run, in order."""

Epochs = Annotated[int, Field(ge=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Proportion = Annotated[float, Field(ge=0, le=1)]
"""Unlike the `Share` of constraints, all or nothing, too."""


class Rate(Config):
    """A learning rate over one phase: linear warm-up to `peak`, then its decay.

    >>> Rate(peak=0.1, decay="cosine").at(50, steps=100, steps_per_epoch=10)
    0.05
    """

    ERROR = RecipeError

    peak: Annotated[float, Field(gt=0)]
    """Learning rate after warm-up."""
    decay: Literal["constant", "cosine", "step"] = "constant"
    """cosine: half a wave from `peak` to `final * peak`; step: times `factor` at each of `milestones`."""
    final: Proportion = 0.0
    """Where cosine decay ends, as a share of `peak`."""
    milestones: tuple[Proportion, ...] = (0.5, 0.75)
    """Where step decay acts, as shares of the phase."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What step decay multiplies the rate by."""
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    """Epochs, possibly a fraction, in which the rate rises linearly from nearly zero to `peak`."""
    cycles: Annotated[int, Field(ge=1)] = 1
    """How often the decay runs over the phase: after each cycle the rate is back at `peak`. As many cycles as the
    solver has updates reset the rate at each of them."""

    def at(self, step: int, steps: int, steps_per_epoch: int) -> float:
        """The rate of training step `step` of a phase of `steps` steps."""
        warm = min(round(self.warmup_epochs * steps_per_epoch), steps)
        if step < warm:
            return self.peak * (step + 1) / warm
        left = max(1, steps - warm)
        passed = (step - warm) * self.cycles % left / left
        if self.decay == "cosine":
            return self.peak * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * passed)))
        if self.decay == "step":
            return self.peak * self.factor ** sum(
                step * self.cycles % steps >= share * steps for share in self.milestones
            )
        return self.peak


class OptimizerSettings(Config):
    """The optimizer, made anew (with empty buffers) at the start of each phase."""

    ERROR = RecipeError

    kind: Literal["sgd", "adam"] = "sgd"
    """Stochastic gradient descent with momentum, or Adam with decoupled weight decay."""
    momentum: Momentum = 0.9
    """Of SGD, in [0, 1)."""
    nesterov: bool = False
    """Look-ahead momentum of SGD; needs momentum > 0."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """L2 decay per step, as a share of the learning rate."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """Of Adam: decay of the averages of gradients and squared gradients."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "OptimizerSettings":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs momentum > 0; raise momentum or drop nesterov")
        return self


class Distillation(Config):
    """The dense model as a teacher: loss = (1 - weight) * task + weight * T^2 * KL(teacher || student), at temperature
    T. Short for two `losses`: `labels` of weight 1 - weight, and `soft`.

    Source: Hinton et al. 2015, arXiv:1503.02531.
    """

    ERROR = RecipeError

    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the distillation loss, in (0, 1]."""
    temperature: Annotated[float, Field(gt=0)] = 3.0
    """Divisor T of logits; larger means softer."""


class Schedule(Config):
    """Phases in order: dense (plain training), shape (the solver at work), retrain (zeros fixed), quantize (values
    rounded as the recipe's `quantize` says; after the last step)."""

    ERROR = RecipeError

    dense_epochs: Epochs = 0
    """Epochs of plain training first, for a network that is not trained yet."""
    shape_epochs: Epochs = 8
    """Epochs in which the solver moves the weights into their constraints."""
    retrain_epochs: Epochs = 18
    """Epochs after the cut, with the zeros held."""
    quantize_epochs: Epochs = 0
    """Epochs at the end with weights and inputs of layers rounded; 0 rounds them without training."""
    restarts: Annotated[int, Field(ge=0)] = 0
    """How often shaping begins again from the projected weights, with the solver's state, the optimizer and the
    learning rate as at its start; each time it takes `shape_epochs`. Until the cut, zeros may come back."""
    updates_per_epoch: Annotated[int, Field(ge=1)] = 1
    """Solver updates in each epoch of shaping, evenly spread."""
    batch_size: Annotated[int, Field(ge=1)] = 128
    """Examples in a training step."""
    dense_rate: Rate = Rate(peak=0.1, decay="cosine")
    """Learning rate of the dense phase."""
    shape_rate: Rate = Rate(peak=0.01)
    """Learning rate of the shape phase."""
    retrain_rate: Rate = Rate(peak=0.05, decay="cosine", warmup_epochs=1)
    """Learning rate of the retrain phase."""
    quantize_rate: Rate = Rate(peak=0.005, decay="cosine")
    """Learning rate of the quantize phase."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Optimizer of all phases."""
    distillation: Distillation | None = None
    """Learn from the dense model during shaping and retraining."""
    losses: tuple[Annotated[SerializeAsAny[Loss], BeforeValidator(Loss.parse)], ...] = ()
    """What is learned in shaping and retraining instead, summed: `labels`, `hard`, `soft`, `feature`,
    `self_supervised`. The list is the whole loss: without `labels` the labels are not used."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability spread over the wrong classes in the task loss, in [0, 1)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: matrix products and convolutions under autocast; weights and their updates stay float32."""
    norm_batches: Annotated[int, Field(ge=0)] = 0
    """Training batches over which batch norm's averages are taken anew at the end, in float32; 0 keeps those of
    training, which lag behind the weights and, in bfloat16, were taken of rounded activations."""
    channels_last: bool = False
    """Train in NHWC memory layout, which convolutions on CPUs prefer."""
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 0
    """Of data order, augmentation and dropout, below 2^40."""

    @model_validator(mode="after")
    def _said_once(self) -> "Schedule":
        if self.losses and self.distillation is not None:
            raise ValueError(
                "losses and distillation both say what is learned; write distillation as a loss of kind soft"
            )
        if self.losses and self.label_smoothing:
            raise ValueError("label_smoothing is no part of losses; set it in the loss of kind labels")
        return self

    @property
    def plain_loss(self) -> Labels:
        """What dense training learns from: the labels."""
        labels = [loss for loss in self.losses if isinstance(loss, Labels)]
        return Labels(label_smoothing=labels[0].label_smoothing if labels else self.label_smoothing)

    @property
    def all_losses(self) -> tuple[Loss, ...]:
        """What shaping and retraining learn from: `losses`, or what `distillation` and `label_smoothing` mean."""
        if self.losses or self.distillation is None:
            return self.losses or (self.plain_loss,)
        soft = Soft(weight=self.distillation.weight, temperature=self.distillation.temperature)
        if self.distillation.weight == 1:
            return (soft,)
        return (Labels(weight=1 - self.distillation.weight, label_smoothing=self.label_smoothing), soft)

    def epochs(self, phase: str) -> int:
        """Epochs of `phase`, one of PHASES."""
        found: int = getattr(self, f"{phase}_epochs")
        return found

    def rate(self, phase: str) -> Rate:
        """Learning rate of `phase`."""
        found: Rate = getattr(self, f"{phase}_rate")
        return found
