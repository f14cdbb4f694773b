"""Progress of a run on stderr: two bars on a terminal, a line an epoch anywhere else (log files, CI)."""

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_DESCRIPTION = "{task.description:<9}"


class Bars:
    """The callbacks that `openwork.compress` calls; use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn(_DESCRIPTION),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._all = self._bars.add_task("epochs", total=None, note="", visible=False)
        self._one = self._bars.add_task("", total=None, note="", visible=False)
        self._where = ""

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def message(self, text: str) -> None:
        """One line worth reading."""
        self._console.print(text)

    def epoch_started(self, phase: str, epoch: int, epochs: int, batches: int) -> None:
        """An epoch begins."""
        self._where = f"epoch {epoch + 1}/{epochs} {phase}"
        self._bars.update(self._all, total=epochs, completed=epoch, visible=True)
        self._bars.reset(self._one, total=batches, description=phase, note="", visible=True)

    def batch_done(self, loss: float) -> None:
        """A training step ended."""
        self._bars.update(self._one, advance=1, note=f"loss {loss:.3f}")

    def epoch_ended(self, metrics: dict[str, Any]) -> None:
        """An epoch ended: its figures stay on the screen."""
        figures = [f"loss {metrics['train_loss']:.3f}"]
        if "validation_accuracy" in metrics:
            figures.append(f"validation {metrics['validation_accuracy']:.2%}")
        if "dual_residual" in metrics:
            figures.append(f"residuals {metrics['primal_residual']:.2g}, {metrics['dual_residual']:.2g}")
        if metrics.get("sparsity"):
            figures.append(f"zeros {metrics['sparsity']:.1%}")
        if "step" in metrics:
            candidate = f", candidate {metrics['candidate']}" if "candidate" in metrics else ""
            self._where += f" (step {metrics['step']}{candidate})"
        self._bars.update(self._all, advance=1)
        self._console.print(f"{self._where}: {', '.join(figures)}  [dim]{metrics['seconds']:.1f} s[/dim]")


class Bar:
    """One bar for work in stages, called with (what, done, total); a line a stage where there is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console, self._what = console, ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, visible=False)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what = what
            self._bar.reset(self._task, total=total, description=what, visible=True)
            if not self._console.is_terminal:
                self._console.print(f"{what}: {total}")
        self._bar.update(self._task, completed=done)
