"""Figures that took time to measure, kept in a file, so that none is measured twice."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import RunError
from ..files import write_text

FILE = "allocation-figures.json"
"""Name of the file in a run folder."""


class Figures:
    """JSON values by key; a key says everything that its value depends on, the machine and the weights included.

    Raises RunError if the file cannot be read or written.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else Path(folder) / FILE
        self._known: dict[str, Any] = {}
        if self._path is not None and self._path.exists():
            try:
                self._known = dict(json.loads(self._path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise RunError(f"{self._path} cannot be read ({error}); delete it to measure again") from None

    def get(self, key: str, measure: Callable[[], Any]) -> Any:
        """The value of `key`, measured and kept if it is not known."""
        if key not in self._known:
            self._known[key] = measure()
            if self._path is not None:
                write_text(self._path, json.dumps(self._known, indent=1))
        return self._known[key]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """A name for these numbers: equal tensors have equal ones."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode())
        found.update(tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()
