"""Engines to compare with: what each must offer, so that all of them are measured in the same way."""

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from ...errors import MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor, nn

Run = Callable[[], tuple[np.ndarray, ...]]
"""One inference on the inputs that it was prepared with."""


class Availability(NamedTuple):
    """Whether an engine can run here; true or false like a bool."""

    ok: bool
    reason: str
    """Why it cannot, with the remedy; empty if it can."""

    def __bool__(self) -> bool:
        return self.ok


class Peer(ABC):
    """One engine.

    Its name is its file's name. `prepare` does everything that may be done once, before the clock runs.
    """

    packages: ClassVar[tuple[str, ...]]
    """What must be importable, as pip names; the first is the engine itself, whose version is reported."""

    @property
    def name(self) -> str:
        """The engine's name: 'onnxruntime'."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def version(self) -> str:
        """The installed version; empty if there is none."""
        try:
            return importlib.metadata.version(self.packages[0])
        except importlib.metadata.PackageNotFoundError:
            return ""

    def available(self) -> Availability:
        """Whether `prepare` can work here."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if absent:
            return Availability(False, f"{self.name} needs {' and '.join(absent)}: pip install {' '.join(absent)}")
        return Availability(True, "")

    def check(self) -> None:
        """Raise `MissingDependencyError` with the line that installs what is missing."""
        if not (found := self.available()):
            raise MissingDependencyError(found.reason)

    @abstractmethod
    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        """Compile `model` for `threads` threads; the result runs it on `example_inputs` and returns its outputs.

        Raises `MissingDependencyError` where the engine is not installed.
        """


def arrays(outputs: "Tensor | tuple[Tensor, ...] | list[Tensor]") -> tuple[np.ndarray, ...]:
    """Outputs of a torch module as NumPy arrays; the memory is shared, nothing is copied."""
    several = outputs if isinstance(outputs, tuple | list) else (outputs,)
    return tuple(output.numpy() for output in several)
