"""The functions of `openwork.engine._native`, answered by `native/tests/remote.cpp` at the other end of a pipe.

Tests that import the native library get this in its place when they run for another machine; see `elsewhere.py`.
"""

import json
import struct
import subprocess
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

TYPES = ("float32", "int32", "uint16", "uint8", "int8")
ERRORS = {1: ValueError, 2: MemoryError, 3: IndexError, 4: RuntimeError}


class Gone(Exception):
    """The other end died, which no call may bring about."""


class Connection:
    """One process that answers one call after another."""

    def __init__(self, command: Sequence[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lock = threading.RLock()

    def ask(self, call: str, arrays: Sequence[tuple[str, np.ndarray]] = (), **fields: Any) -> bytes:
        """The answer's bytes; an exception of the library is raised here as Python's own."""
        fields["arrays"] = [[name, array.dtype.name, array.size] for name, array in arrays]
        text = json.dumps({"call": call, **fields}).encode()
        data = b"".join(array.tobytes() for _, array in arrays)
        try:
            with self.lock:
                self.process.stdin.write(struct.pack("<QQ", len(text), len(data)) + text + data)
                self.process.stdin.flush()
                kind, length = struct.unpack("<QQ", self._read(16))
                answer = self._read(length)
        except (BrokenPipeError, EOFError) as error:
            raise Gone(f"exit code {self.process.wait()} after {call} {str(fields)[:2000]}") from error
        if kind:
            raise ERRORS[kind](answer.decode())
        return answer

    def close(self) -> None:
        """End the process; to be called when it has nothing more to answer."""
        self.process.kill()
        self.process.communicate()

    def text(self, call: str, **fields: Any) -> str:
        return self.ask(call, **fields).decode()

    def _read(self, length: int) -> bytes:
        found = self.process.stdout.read(length)
        if len(found) < length:
            raise EOFError
        return found


class Program:
    """A native program at the other end, with the methods of `_native.Program`."""

    connection: Connection
    """Set by `module` in a class of its own."""

    def __init__(
        self,
        arena: int,
        externals: list[int],
        threads: int,
        isa: str = "auto",
        inputs: Sequence[int] = (),
        turns: int = 1,
    ) -> None:
        sizes = {"arena": arena, "externals": list(externals), "inputs": list(inputs), "turns": turns}
        self.id, self.threads = int(self.connection.text("program", **sizes, threads=threads, isa=isa)), threads
        self._sizes = list(externals)
        self._length, self.levels = 0, 1
        self._mirror: np.ndarray | None = None  # of the arena, from when somebody asks for it

    def __del__(self) -> None:
        if hasattr(self, "id") and self.connection.process.poll() is None:
            self.connection.ask("forget", program=self.id)

    def __len__(self) -> int:
        return self._length

    @property
    def isa(self) -> str:
        return self.connection.text("isa", program=self.id)

    def add(self, op: str, fields: str, arrays: dict[str, np.ndarray], at: int = -1) -> int:
        named = []
        for name, array in arrays.items():
            if not isinstance(array, np.ndarray) or array.ndim != 1:
                raise TypeError(f"{name} is no array of one axis")
            if array.dtype.name not in TYPES:
                raise ValueError(f"an array's type is none of {', '.join(TYPES)}")
            named.append((name, np.ascontiguousarray(array)))
        added = int(self._synced("add", named, op=op, fields=fields, at=at))
        self._length = max(self._length, added + 1)
        self.levels = int(self.connection.text("levels", program=self.id))
        return added

    def run(self, begin: int, end: int, buffers: list[np.ndarray], level: int = 0) -> None:
        changed = np.frombuffer(self._synced("run", checked(buffers), begin=begin, end=end, level=level), np.float32)
        for buffer, part in zip(buffers, np.split(changed, np.cumsum(self._sizes)[:-1]), strict=False):
            buffer[...] = part.reshape(buffer.shape)

    def time_step(self, step: int, repeats: int, buffers: list[np.ndarray]) -> list[float]:
        return self._seconds("time_step", buffers, step=step, repeats=repeats).tolist()

    def profile(self, repeats: int, buffers: list[np.ndarray], level: int = 0) -> list[list[float]]:
        return self._seconds("profile", buffers, repeats=repeats, level=level).reshape(repeats, -1).tolist()

    def kernel_name(self, step: int) -> str:
        return self.connection.text("kernel_name", program=self.id, step=step)

    def arena(self) -> np.ndarray:
        """A copy of the arena that is sent before and fetched after every call."""
        if self._mirror is None:
            self._mirror = np.frombuffer(self.connection.ask("arena", program=self.id), np.float32).copy()
        return self._mirror

    def _seconds(self, call: str, buffers: list[np.ndarray], **fields: Any) -> np.ndarray:
        return np.frombuffer(self._synced(call, checked(buffers), **fields), np.float64)

    def _synced(self, call: str, arrays: list[tuple[str, np.ndarray]], **fields: Any) -> bytes:
        if self._mirror is None:
            return self.connection.ask(call, arrays, program=self.id, **fields)
        with self.connection.lock:
            self.connection.ask("put_arena", [("arena", self._mirror)], program=self.id)
            answer = self.connection.ask(call, arrays, program=self.id, **fields)
            self._mirror[:] = np.frombuffer(self.connection.ask("arena", program=self.id), np.float32)
        return answer


def module(command: Sequence[str], here: ModuleType) -> ModuleType:
    """A stand-in for `_native`, whose constants it has; its calls are answered by a process."""
    connection = Connection(command)
    found = ModuleType(here.__name__)
    vars(found).update({name: value for name, value in vars(here).items() if name.isupper()})
    found.connection, found.close = connection, connection.close
    found.Program = type("Program", (Program,), {"connection": connection})
    found.isas = lambda: connection.text("isas").split()
    found.cpu_features = lambda: connection.text("cpu_features").split()
    found.lanes = lambda isa: int(connection.text("lanes", isa=isa))
    found.widest_tile = lambda isa, mb: int(connection.text("widest_tile", isa=isa, mb=mb))
    found.widest_quad_tile = lambda isa, mb: int(connection.text("widest_quad_tile", isa=isa, mb=mb))
    found.multiplies_matrices = lambda isa: bool(int(connection.text("multiplies_matrices", isa=isa)))
    found.take_groups = here.take_groups  # a pattern's, no engine's
    found.dense_fits = lambda isa, width, rows, columns: bool(
        int(connection.text("dense_fits", isa=isa, width=width, rows=rows, columns=columns))
    )
    found.fma_peak = lambda isa: float(connection.text("fma_peak", isa=isa))

    def activate(isa: str, name: str, parameters: list[float], values: np.ndarray) -> None:
        answer = connection.ask("activate", checked([values]), isa=isa, name=name, parameters=parameters)
        values[...] = np.frombuffer(answer, np.float32)

    found.activate = activate
    return found


def checked(buffers: Sequence[np.ndarray]) -> list[tuple[str, np.ndarray]]:
    """Buffers by their numbers; TypeError for what the real module does not take either."""
    for b in buffers:
        if not isinstance(b, np.ndarray) or b.dtype != np.float32 or not b.flags.carray:
            raise TypeError("a buffer is a contiguous, writable array of float32")
    return [(str(i), b) for i, b in enumerate(buffers)]
