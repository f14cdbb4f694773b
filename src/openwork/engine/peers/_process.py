"""Peers that run in a process of their own: their threads, their crashes and what they print stay there.

Some also need other versions of libraries than this process has; those have an environment of their own, with a Python
of its own. `make peers` makes them.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import weakref
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np

from ...errors import PeerError
from .base import Arrays, Availability, Peer, Run

if TYPE_CHECKING:
    from torch import Tensor, nn

SILENT = {"NM_DISABLE_ANALYTICS": "1"}
"""DeepSparse would tell its makers where it runs."""

WORKER = Path(__file__).with_name("_worker.py")


class ProcessPeer(Peer):
    """An engine in a process of its own: this process exports the network into a folder, the other one loads it."""

    environment: ClassVar[str] = ""
    """Name of its own environment; empty if it lives in the one that Openwork is installed in."""
    variables: ClassVar[Mapping[str, str]] = {}
    """What its process finds among the variables of its environment, besides ours."""

    @abstractmethod
    def export(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", folder: Path) -> None:
        """Write the network into `folder` in a form that `load` reads."""

    @abstractmethod
    def load(self, folder: Path, inputs: Arrays, threads: int) -> Run:
        """In the other process: set the engine up for what `export` wrote. It may have no torch."""

    @property
    def python(self) -> Path:
        """The Python that runs it: OPENWORK_PEER_NAME, or what `make peers` made beside this one."""
        if not self.environment:
            return Path(sys.executable)
        given = os.environ.get(f"OPENWORK_PEER_{self.environment.upper()}")
        return Path(given) if given else Path(sys.prefix) / "peers" / self.environment / "bin" / "python"

    def versions(self) -> dict[str, str]:
        if not self.environment:
            return super().versions()
        where = [str(path) for path in self.python.parents[1].glob("lib/python*/site-packages")]
        installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions(path=where)}
        return {name: installed[name] for name in self.packages if name in installed}

    def available(self) -> Availability:
        if not self.environment:
            return super().available()
        absent = [name for name in self.packages if name not in self.versions()]
        if absent:
            remedy = f"make peers, or set OPENWORK_PEER_{self.environment.upper()} to a Python that has it"
            return Availability(
                False, f"{self.name} needs {' and '.join(absent)} in an environment of its own: {remedy}"
            )
        return Availability(True, "")

    @final
    def prepare(self, model: "nn.Module", example_inputs: "tuple[Tensor, ...]", threads: int) -> Run:
        self.check()
        home = tempfile.TemporaryDirectory(prefix=f"openwork-{self.name}-")
        try:
            folder = Path(home.name)
            self.export(model.eval(), example_inputs, folder)
            save(folder, "input", tuple(value.numpy() for value in example_inputs))
            return Worker(self.name, self.python, home, threads, self.variables)
        except BaseException:
            home.cleanup()
            raise


class Worker:
    """The other process, which one inference can be asked of, or a block of them with their time."""

    def __init__(
        self,
        name: str,
        python: Path,
        home: "tempfile.TemporaryDirectory[str]",
        threads: int,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.folder = Path(home.name)
        number = str(threads)
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                # -P: a script's own folder comes first in sys.path else, and ours holds an `onnxruntime.py`.
                [python, "-P", WORKER, name, self.folder, number],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **SILENT, "OMP_NUM_THREADS": number, "TVM_NUM_THREADS": number, **(variables or {})},
            )
        self._close = weakref.finalize(self, _stop, self._process, home)
        self._answer()

    def __call__(self) -> Arrays:
        """One inference, and its outputs."""
        count = self._ask(calls=0)["outputs"]
        return tuple(np.load(self.folder / f"output{i}.npy") for i in range(count))

    def block(self, calls: int) -> float:
        """Median seconds of `calls` inferences, measured in the other process, which then rests."""
        return float(self._ask(calls=calls)["seconds"])

    def close(self) -> None:
        """End the process and remove its files."""
        self._close()

    def _ask(self, **request: int) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer tells more
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            last = (self.folder / "log").read_text(errors="replace").strip().splitlines()[-1:]
            raise PeerError(f"{self.name} ended with code {code}: {last[0].strip()[:200] if last else 'no word'}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{self.name} cannot run this network: {answer['error']}")
        return answer


def save(folder: Path, name: str, values: Arrays) -> None:
    """Write arrays as name0.npy, name1.npy, ..."""
    for index, value in enumerate(values):
        np.save(folder / f"{name}{index}.npy", value)


def _stop(process: "subprocess.Popen[str]", home: "tempfile.TemporaryDirectory[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.kill()
    process.wait()
    home.cleanup()
