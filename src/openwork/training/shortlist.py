"""The partial models from which a run goes on."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .result import StepResult


@dataclass(frozen=True)
class Candidate:
    """A partial model."""

    step: int
    """The step that it is the result of, from 0."""
    parent: int
    """Place of the model it began from among those that were kept."""
    accuracy: float | None
    """On the validation examples; None where the data have none."""
    hardened: dict[str, float]
    """Accuracies right after the cut; of the last step only."""
    sparsity: float
    """Share of zeros over all weights that rules can hit."""
    model: dict[str, Tensor]
    """The model's state, tensors of its own."""
    shaper: dict[str, Any]
    """The shaper's state: what is held."""
    quantized: dict[str, dict[str, float]] = field(default_factory=dict)
    """Accuracies before quantization and before training with it; of the last step only."""


@dataclass
class Shortlist:
    """At most `size` partial models, and the attempts at the step at hand."""

    size: int
    kept: list[Candidate] = field(default_factory=list)
    """Their places are what `Candidate.parent` counts."""
    tried: list[Candidate] = field(default_factory=list)

    def settle(self, floor: float | None = None) -> StepResult:
        """Take in the best attempt, of equals the first: as one more model, or in the place of the one it began from if
        there are `size`. Below `floor` it is left out, unless there is no other.

        Source: Ye et al. 2018, arXiv:1810.07378.
        """
        best = max(self.tried, key=lambda candidate: candidate.accuracy or 0.0)
        good = floor is None or best.accuracy is None or best.accuracy >= floor
        result = StepResult(
            step=best.step + 1,
            validation_accuracy=best.accuracy,
            sparsity=best.sparsity,
            parent=self.kept[best.parent].step + 1 if self.kept else 0,
            tried=tuple(candidate.accuracy for candidate in self.tried),
            kept=good,
        )
        if good or not self.kept:
            self._take_in(best)
        self.tried = []
        return result

    def newest(self) -> Candidate:
        """The model of the last step that was taken in."""
        return max(self.kept, key=lambda candidate: candidate.step)

    def _take_in(self, chosen: Candidate) -> None:
        if len(self.kept) < self.size:
            self.kept.append(chosen)
        else:
            self.kept[chosen.parent] = chosen
