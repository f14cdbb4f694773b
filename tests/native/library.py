"""libopenwork as Python sees it: the functions of openwork.h through ctypes, NumPy in and out."""

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

TYPES = ("float32", "int64", "int32", "int16", "int8", "uint8", "bool")


class Tensor(ctypes.Structure):
    """openwork_tensor."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("rank", ctypes.c_int),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
    )

    def described(self) -> tuple[str, tuple[int, ...], str]:
        """Name, shape and type."""
        return self.name.decode(), tuple(self.shape[: self.rank]), TYPES[self.type]


_POINTER = ctypes.c_void_p
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "version": (ctypes.c_char_p,),
    "error": (ctypes.c_char_p,),
    "load": (_POINTER, ctypes.c_char_p, ctypes.c_int),
    "load_memory": (_POINTER, _POINTER, ctypes.c_size_t, ctypes.c_int),
    "free": (None, _POINTER),
    "input_count": (ctypes.c_int, _POINTER),
    "output_count": (ctypes.c_int, _POINTER),
    "input": (ctypes.POINTER(Tensor), _POINTER, ctypes.c_int),
    "output": (ctypes.POINTER(Tensor), _POINTER, ctypes.c_int),
    "run": (ctypes.c_int, _POINTER, _POINTER, _POINTER),
    "run_batch": (ctypes.c_int, _POINTER, ctypes.c_int64, _POINTER, _POINTER),
    "levels": (ctypes.c_int, _POINTER),
    "run_level": (ctypes.c_int, _POINTER, ctypes.c_int, ctypes.c_int64, _POINTER, _POINTER),
}


class Failure(Exception):
    """A call failed; the text is what openwork_error says."""


class Library:
    """The functions, without their prefix; `fail` where one says that it failed."""

    def __init__(self, path: Path) -> None:
        self.loaded = ctypes.CDLL(str(path))
        for name, (result, *arguments) in _FUNCTIONS.items():
            function = getattr(self.loaded, f"openwork_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def failure(self) -> Failure:
        return Failure(self.error().decode())


class Engine:
    """A model loaded through the library: from a file, or from memory `offset` bytes after an aligned place."""

    def __init__(self, library: Library, source: Path | bytes, threads: int = 1, offset: int = 0) -> None:
        self.library = library
        if isinstance(source, bytes):
            self.memory = np.frombuffer(bytes(offset) + source, np.uint8).copy()
            self.handle = library.load_memory(self.memory.ctypes.data + offset, len(source), threads)
        else:
            self.handle = library.load(str(source).encode(), threads)
        if not self.handle:
            raise library.failure()

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.library.free(self.handle)

    def inputs(self) -> list[tuple[str, tuple[int, ...], str]]:
        count = self.library.input_count(self.handle)
        return [self.library.input(self.handle, i).contents.described() for i in range(count)]

    def outputs(self) -> list[tuple[str, tuple[int, ...], str]]:
        count = self.library.output_count(self.handle)
        return [self.library.output(self.handle, i).contents.described() for i in range(count)]

    def levels(self) -> int:
        return self.library.levels(self.handle)

    def run(self, *arrays: np.ndarray, batch: int | None = None, level: int | None = None) -> list[np.ndarray]:
        """The outputs; of the compiled batch, or through openwork_run_batch or openwork_run_level."""
        shapes = [(shape if batch is None else (batch, *shape[1:]), dtype) for _, shape, dtype in self.outputs()]
        found = [np.full(shape, 7, dtype) for shape, dtype in shapes]
        before = [a.copy() for a in arrays]
        call = (self.library.run, self.handle) if batch is None else (self.library.run_batch, self.handle, batch)
        if level is not None:
            call = self.library.run_level, self.handle, level, batch
        if call[0](*call[1:], pointers(arrays), pointers(found)):
            raise self.library.failure()
        for array, old in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, old)
        return found


def pointers(arrays: Any) -> Any:
    """An array of pointers to arrays."""
    return (ctypes.c_void_p * max(1, len(arrays)))(*(a if a is None else a.ctypes.data for a in arrays))
