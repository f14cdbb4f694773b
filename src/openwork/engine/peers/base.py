"""Engines to compare with: what each must offer, so that all of them are measured in the same way."""

import importlib.metadata
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from ...errors import MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor, nn

Run = Callable[[], tuple[np.ndarray, ...]]
"""One inference on the inputs that it was prepared with."""

Arrays = tuple[np.ndarray, ...]
"""One array for each input or output of a network."""


INT8_TOLERANCE = 0.3
"""Of the largest output, on random weights; with trained ones and typical inputs a tenth of it is usual."""


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
    """What must be installed, as pip names; the first is the engine itself, whose version is reported."""
    imports: ClassVar[Mapping[str, str]] = {}
    """How Python calls those of the packages whose pip name it does not share."""
    precision: ClassVar[str] = "fp32"
    """What it computes in: 'fp32', 'bf16', 'int8'."""
    tolerance: ClassVar[float] = 1e-3
    """Largest difference to the engine's outputs that its precision explains, relative to the largest output.

    An fp32 peer beyond it proves one of the two wrong, which is an error. A peer of lower precision beyond it is left
    out, and its difference named.
    """

    def __init__(self, calibration: Sequence[Arrays] = ()) -> None:
        """`calibration`: typical inputs, for peers that quantize; without any they take random ones."""
        self.calibration = calibration

    @property
    def name(self) -> str:
        """The engine's name: 'onnxruntime'."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def version(self) -> str:
        """The installed version; empty if there is none."""
        return self.versions().get(self.packages[0], "")

    def versions(self) -> dict[str, str]:
        """The installed versions of its packages, by pip name."""
        found = {}
        for package in self.packages:
            try:
                found[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
        return found

    def available(self) -> Availability:
        """Whether `prepare` can work here."""
        absent = [name for name in self.packages if importlib.util.find_spec(self.imports.get(name, name)) is None]
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

        Raises `MissingDependencyError` where the engine is not installed, `PeerError` where it cannot run this network.
        """


def arrays(outputs: "Tensor | tuple[Tensor, ...] | list[Tensor]") -> Arrays:
    """Outputs of a torch module as NumPy arrays; the memory is shared, nothing is copied."""
    several = outputs if isinstance(outputs, tuple | list) else (outputs,)
    return tuple(output.numpy() for output in several)


def without_int64(values: Sequence[np.ndarray]) -> Arrays:
    """The arrays with int64 as int32, for engines made for phones, which know no longer integers."""
    return tuple(value.astype(np.int32) if value.dtype == np.int64 else value for value in values)
