"""How `compress` tells what it is doing; the command line shows it as bars."""

from typing import Any, Protocol


class Progress(Protocol):
    """Callbacks, all called from the training thread, in this order for each epoch."""

    def message(self, text: str) -> None:
        """One line worth reading: what was measured, where a run resumes."""

    def epoch_started(self, phase: str, epoch: int, epochs: int, batches: int) -> None:
        """Epoch `epoch` (from 0) of `epochs` over all phases begins; it has `batches` training steps."""

    def batch_done(self, loss: float) -> None:
        """A training step ended with this loss."""

    def epoch_ended(self, metrics: dict[str, Any]) -> None:
        """The epoch ended; `metrics` is its line of metrics.jsonl."""


class Silent:
    """Shows nothing."""

    def message(self, text: str) -> None: ...

    def epoch_started(self, phase: str, epoch: int, epochs: int, batches: int) -> None: ...

    def batch_done(self, loss: float) -> None: ...

    def epoch_ended(self, metrics: dict[str, Any]) -> None: ...
