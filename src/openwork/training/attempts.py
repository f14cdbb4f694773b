"""The order of a run: its partial prunings, and the epochs of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..recipes.schedule import PHASES, Schedule


@dataclass(frozen=True)
class Span:
    """Where an epoch lies: in the run, for seeds, and in its phase, for learning rates."""

    phase: str
    epoch: int
    """Epoch of the whole run, from 0."""
    of_phase: int
    """Epoch of the phase, from 0; a restart of shaping begins at 0 again."""
    restart: int = 0
    """How often shaping has begun again before."""

    @property
    def part(self) -> tuple[str, int]:
        """What has an optimizer of its own."""
        return self.phase, self.restart


@dataclass(frozen=True)
class Attempt:
    """One partial pruning: a step, begun from one of the models that are kept."""

    step: int
    """From 0."""
    parent: int
    """Place of the model it begins from among those that are kept; without meaning in the first step."""
    spans: tuple[Span, ...]
    """Its epochs in order; those of the dense phase belong to the first attempt."""
    end: int
    """Epochs of the run that are behind after it."""
    last: bool
    """Whether no other attempt at this step follows."""


def attempts(schedules: Sequence[Schedule], candidates: int) -> list[Attempt]:
    """All attempts of a run with a schedule for each step: as many at each step as models are kept by then."""
    found: list[Attempt] = []
    for step, schedule in enumerate(schedules):
        parents = min(max(step, 1), candidates)
        for parent in range(parents):
            spans = tuple(_spans(schedule, found[-1].end if found else 0))
            end = spans[-1].epoch + 1 if spans else found[-1].end if found else 0
            found.append(Attempt(step, parent, spans, end, last=parent == parents - 1))
    return found


def _spans(schedule: Schedule, first: int) -> Iterator[Span]:
    for phase in PHASES:
        for restart in range(schedule.restarts + 1 if phase == "shape" else 1):
            for of_phase in range(schedule.epochs(phase)):
                yield Span(phase, first, of_phase, restart)
                first += 1
