"""Losses that grow without limit: when training has failed, and what to do about it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..data.base import Data
from ..errors import TrainingError
from .shaper import Shaper

LIMIT = 10
"""Training has failed when the mean loss of an epoch is more than so many times that of the first epoch of the run, of
the first of the phase, and of guessing: log(classes). A network that was just cut may be worse than guessing and
recover."""

UNKNOWN = 1_000_000
"""Classes assumed where data do not say how many there are."""


def require_convergence(
    line: Mapping[str, Any], history: Sequence[Mapping[str, Any]], data: Data, weighted: bool, shaper: Shaper | None
) -> None:
    """TrainingError if the mean loss of an epoch is finite and yet far above all that training can mean.

    `line` is the epoch's in metrics.jsonl, `history` holds those before it. Of `weighted` losses, whose size is a
    matter of their weights, the first epoch of a phase is not judged.
    """
    phase, loss = line["phase"], line["train_loss"]
    of_phase = [before["train_loss"] for before in history if before["phase"] == phase]
    if weighted and not of_phase:
        return
    guessing = math.log(max(2, len(data.classes) or UNKNOWN))
    usual = max([guessing, *(before["train_loss"] for before in history[:1]), *of_phase[:1]])
    if loss > LIMIT * usual:
        raise TrainingError(
            f"the mean loss of epoch {line['epoch']} ({phase}) is {loss:.4g}, more than {LIMIT} times that of "
            f"{'the first epoch' if usual > guessing else 'guessing'}, {usual:.3g}; {remedy(phase, shaper)}"
        )


def remedy(phase: str, shaper: Shaper | None) -> str:
    """What to lower, and what is not lost."""
    fields = shaper.recipe.solver.REMEDY if shaper is not None and phase == "shape" else ()
    lower = " or ".join([f"schedule.{phase}_rate.peak", *(f"solver.{field}" for field in fields)])
    return f"lower {lower} (the last checkpoint is kept)"
