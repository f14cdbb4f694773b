"""What the user brings instead of a name: a factory in a Python file, and torch's own data loaders."""

import importlib.util
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..errors import DataError, OpenworkError, UsageError
from .base import Batch, Data, check_batch_size, mixed_seed


def is_file_spec(spec: str) -> bool:
    """Whether `spec` means the user's own code: `path/to/file.py:factory`."""
    return spec.rpartition(":")[0].endswith(".py") or spec.endswith(".py")


def load_factory(spec: str) -> Callable[..., Any]:
    """The function named by `path/to/file.py:factory`; the file's folder becomes importable, as when it is run.

    Raises `UsageError` for a missing file or name, and for a file that fails while it is imported.
    """
    name = spec.rpartition(":")[2]
    home = factory_module(spec)
    found = getattr(home, name, None)
    if not callable(found):
        raise UsageError(f"{spec!r}: {Path(home.__file__ or '').name} has no function {name!r}")
    return found  # type: ignore[no-any-return]


def factory_module(spec: str) -> ModuleType:
    """The user's file in `path/to/file.py:factory`, imported once."""
    path_text = spec.rpartition(":")[0]
    if not path_text.endswith(".py"):
        raise UsageError(f"{spec!r} names no function; write path/to/file.py:factory")
    path = Path(path_text).expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"{spec!r}: there is no file {path}")
    return _import_file(path)


def call_factory(spec: str, wrap: type[OpenworkError], options: dict[str, Any]) -> Any:
    """The result of the user's factory; whatever it raises comes out as `wrap`, with the cause attached."""
    factory = load_factory(spec)
    try:
        return factory(**options)
    except OpenworkError:
        raise
    except Exception as error:
        raise wrap(f"{spec!r} raised {type(error).__name__}: {error}") from error


def _import_file(path: Path) -> ModuleType:
    # Named after the whole path, and registered: worker processes and dataclasses look a class's module up by name.
    name = f"openwork_user_{abs(hash(path))}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


class LoaderData(Data):
    """A pair of torch `DataLoader`s (training, test), regrouped into batches of the size that is asked for.

    The loaders draw their shuffling and augmentation from torch's, NumPy's and Python's global random state, or from
    generators of their own; while a batch is fetched, these are in a state derived from `(seed, epoch)`, and as they
    were afterwards.
    """

    def __init__(self, name: str, train: Iterable[Any], test: Iterable[Any], validation: Iterable[Any] | None = None):
        self.name, self._train, self._test, self._validation = name, train, test, validation
        self.train_size = _size(name, train)
        dataset = getattr(train, "dataset", None)
        self.classes = tuple(str(c) for c in getattr(dataset, "classes", ()))
        first = next(_batches(name, test), None)
        if first is None:
            raise DataError(f"{name}: the test loader is empty; it must yield (inputs, labels) batches")
        self.example_input = first[0][:1]

    def train_batches(self, batch_size: int, seed: int, epoch: int) -> Iterator[Batch]:
        check_batch_size(batch_size)
        fetched = _with_own_random_state(self.name, self._train, mixed_seed(seed, epoch))
        for step, batch in enumerate(_regroup(fetched, batch_size)):
            if step == self.train_steps(batch_size):
                return
            yield batch

    def validation_batches(self, batch_size: int) -> Iterator[Batch]:
        check_batch_size(batch_size)
        return iter(()) if self._validation is None else _regroup(_batches(self.name, self._validation), batch_size)

    def test_batches(self, batch_size: int) -> Iterator[Batch]:
        return _regroup(_batches(self.name, self._test), check_batch_size(batch_size))


def _size(name: str, loader: Iterable[Any]) -> int:
    try:
        if not isinstance(loader, DataLoader):
            return sum(len(labels) for _, labels in _batches(name, loader))
        own = loader.batch_size is None and loader.batch_sampler is not None  # a sampler of batches
        count = _drawn(loader) if own else len(loader.sampler)  # type: ignore[arg-type]
    except TypeError as error:
        raise DataError(f"{name}: the training loader has no length; use a map-style data set") from error
    if loader.drop_last and loader.batch_size:
        count -= count % loader.batch_size
    if not count:
        raise DataError(f"{name}: the training loader is empty")
    return count


def _drawn(loader: DataLoader[Any]) -> int:
    """How many examples the loader's own sampler of batches names, an epoch's; random states stay as they are."""
    generators = _generators(loader)
    with _random_state(_seeded(0, generators), generators):
        return sum(map(len, loader.batch_sampler or ()))


def _batches(name: str, loader: Iterable[Any]) -> Iterator[Batch]:
    for batch in loader:
        if not (isinstance(batch, tuple | list) and len(batch) == 2 and all(isinstance(t, Tensor) for t in batch)):
            raise DataError(f"{name}: a loader must yield (inputs, labels) tensors, got {type(batch).__name__}")
        inputs, labels = batch
        if labels.shape != inputs.shape[:1] or labels.is_floating_point():
            raise DataError(
                f"{name}: labels must be integers [batch], got {labels.dtype} {list(labels.shape)} "
                f"for inputs {list(inputs.shape)}"
            )
        yield inputs, labels.long()


def _regroup(batches: Iterator[Batch], size: int) -> Iterator[Batch]:
    """The same examples in the same order, `size` at a time; the last batch may be smaller."""
    kept: list[Batch] = []
    count = 0
    for batch in batches:
        kept.append(batch)
        count += len(batch[1])
        if count < size:
            continue
        inputs, labels = (torch.cat(part) for part in zip(*kept, strict=True))
        whole = count - count % size
        for start in range(0, whole, size):
            yield inputs[start : start + size], labels[start : start + size]
        kept = [(inputs[whole:], labels[whole:])] if count > whole else []
        count -= whole
    if count:
        inputs, labels = (torch.cat(part) for part in zip(*kept, strict=True))
        yield inputs, labels


def _with_own_random_state(name: str, loader: Iterable[Any], seed: int) -> Iterator[Batch]:
    """The loader's batches, each fetched under a random state of the stream's own (see `LoaderData`)."""
    generators = _generators(loader)
    state = _seeded(seed, generators)
    source: Iterator[Batch] | None = None
    while True:
        with _random_state(state, generators):
            source = source or _batches(name, loader)
            batch = next(source, None)
            state = _current(generators)
        if batch is None:
            return
        yield batch


_States = tuple[Any, Any, Any, tuple[Tensor, ...]]
"""Of torch, NumPy, Python and of generators."""


def _generators(loader: Any) -> list[torch.Generator]:
    """Those that a loader and what it samples with draw from instead of the global state, each once."""
    batches = getattr(loader, "batch_sampler", None)
    owners = (loader, getattr(loader, "sampler", None), batches, getattr(batches, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(g): g for g in found if isinstance(g, torch.Generator)}.values())


def _current(generators: Sequence[torch.Generator]) -> _States:
    own = tuple(generator.get_state() for generator in generators)
    return torch.get_rng_state(), np.random.get_state(), random.getstate(), own


def _restore(state: _States, generators: Sequence[torch.Generator]) -> None:
    torch.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
    for generator, own in zip(generators, state[3], strict=True):
        generator.set_state(own)


def _seeded(seed: int, generators: Sequence[torch.Generator]) -> _States:
    # Not torch.manual_seed, which would seed GPUs, too.
    own = tuple(torch.Generator(g.device).manual_seed(seed).get_state() for g in generators)
    numpy = np.random.RandomState(seed % 2**32).get_state()
    return torch.Generator().manual_seed(seed).get_state(), numpy, random.Random(seed).getstate(), own


@contextmanager
def _random_state(state: _States, generators: Sequence[torch.Generator]) -> Iterator[None]:
    before = _current(generators)
    _restore(state, generators)
    try:
        yield
    finally:
        _restore(before, generators)
