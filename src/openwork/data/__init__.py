"""Data sets in their customary layouts, and the user's own. `resolve` turns what a person names into a `Data`."""

import inspect
from typing import Any

from .. import plugins
from ..errors import DataError
from ._pairs import Pairs, SentencePairs
from ._user import LoaderData, call_factory, is_file_spec
from .base import ArrayData, Augment, Batch, Data, data_root

__all__ = [
    "ArrayData",
    "Augment",
    "Batch",
    "Data",
    "LoaderData",
    "Pairs",
    "SentencePairs",
    "data_root",
    "load",
    "resolve",
]


def resolve(spec: "str | Data | tuple[Any, Any]", **options: Any) -> Data:
    """The set of labelled examples that `spec` means.

    Arguments:
        spec: a name ("cifar10"), the user's own factory ("path/to/file.py:factory", returns a `Data` or a pair
            of torch data loaders), a `Data`, or a pair of loaders (training, test).
        options: passed to the data set's `load` or to the factory, such as `root` or `holdout`.

    Raises `UsageError` for an unknown name or file, `DataError` for data that is missing or damaged.

        data = resolve("cifar10", holdout=5000)
        for images, labels in data.train_batches(128, seed=0, epoch=0): ...
    """
    found = load(spec, **options)
    if isinstance(found, SentencePairs):
        raise DataError(f"{found.name} holds pairs of sentences, not examples with labels; choose another data set")
    return found


def load(spec: "str | Data | tuple[Any, Any]", **options: Any) -> Data | SentencePairs:
    """The data set that `spec` means, of any kind; otherwise as `resolve`.

    pairs = load("stsb")
    """
    if not isinstance(spec, str):
        return _as_data(spec, "loaders")
    if is_file_spec(spec):
        found = call_factory(spec, DataError, options)
    else:
        function = plugins.module("data", spec).load
        if odd := options.keys() - inspect.signature(function).parameters.keys():
            raise DataError(f"{spec} takes no such option: {', '.join(map(repr, sorted(odd)))}")
        found = function(**options)
    return found if isinstance(found, SentencePairs) else _as_data(found, spec)


def _as_data(found: Any, name: str) -> Data:
    if isinstance(found, Data):
        return found
    if isinstance(found, tuple | list) and len(found) in (2, 3):
        return LoaderData(name, *found)
    raise DataError(f"{name}: expected a Data or a pair (training loader, test loader), got {type(found).__name__}")
