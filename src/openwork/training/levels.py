"""Networks at their end: batch norm's averages, and the levels of nested sparsity as networks of their own."""

import copy
from dataclasses import replace

from torch import nn

from .fit import Trainer
from .result import LevelResult, count
from .shaper import Shaper

LEVEL_BATCHES = 100
"""From how many batches batch norm takes its averages at each level of nested sparsity, unless the schedule says."""


def recalibrate(trainer: Trainer, shaper: Shaper, epoch: int) -> None:
    """Batch norm's averages as the schedule wants them, over batches of `epoch`. Training through levels mixes those of
    all levels, so then they are always taken anew."""
    trainer.recalibrate(epoch, trainer.schedule.norm_batches or (LEVEL_BATCHES if shaper.levels > 1 else 0))


def level(trainer: Trainer, shaper: Shaper, number: int, like: nn.Module, epoch: int) -> LevelResult:
    """A level of nested sparsity as a network of its own, a copy of `like` but for its weights."""
    with shaper.at_level(number):
        _, nonzero = count(shaper.matches)
        alone = replace(trainer, model=copy.deepcopy(trainer.model))
    recalibrate(alone, shaper, epoch)
    model = copy.deepcopy(like)
    model.load_state_dict(alone.model.state_dict())
    return LevelResult(model, alone.test_accuracy(), nonzero)
